"""Commands that build: quickstart, prepare, tokenize, train.

Corpora and recipes are found by entry points (`speechllm.corpora`, `speechllm.recipes`), so those of
other packages work like ours.
"""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer
import yaml

from speechllm.cli.console import console, counting, results
from speechllm.errors import ConfigError, RegistryError
from speechllm.registry import suggest

Engine: TypeAlias = Literal["local", "ray"]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Config keys to change.")]


def find_plugin(group: str, name: str) -> Callable[..., Any]:
    """Return the function that a package offers as `name` in the entry point group `speechllm.<group>`."""
    found = {point.name: point for point in entry_points(group=f"speechllm.{group}")}
    if name not in found:
        raise RegistryError(
            f"no {name!r} among the installed {group}{suggest(name, found)} (known: {', '.join(sorted(found))})"
        )
    return found[name].load()


def parse_options(function: Callable[..., Any], options: Sequence[str]) -> dict[str, Any]:
    """Turn "key=value" strings (values in YAML) into keyword arguments that `function` knows."""
    known = [p.name for p in inspect.signature(function).parameters.values()]
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"option {option!r} is not of the form key=value")
        if key not in known:
            raise ConfigError(f"unknown option {key!r}{suggest(key, known)} (known: {', '.join(known)})")
        parsed[key] = yaml.safe_load(value)
    return parsed


def quickstart(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("runs/quickstart"),
    config: Annotated[Path | None, typer.Option(help="Another config than the recipe's own.")] = None,
) -> None:
    """Build a small speech LM from nothing on this machine and write its report.

    Every step that is already finished in the folder is kept, so that the command continues after a stop.

    Example: speechllm quickstart --out runs/quickstart seed=1
    """
    run = find_plugin("recipes", "quickstart")
    results.print(run(out=out, config_path=config, overrides=overrides or []))


def prepare(
    corpus: Annotated[str, typer.Argument(help="Name of a corpus; `speechllm corpora` lists them.")],
    out: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    options: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Corpus options.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="duration=0.5:30, pace=3:25, language, duplicates, speakers, cer=30; repeatable."
        ),
    ] = None,
    whisper: Annotated[
        str | None, typer.Option(help="Whisper (folder or Hub id) that judges for cer; English has Moonshine.")
    ] = None,
    sample_rate: Annotated[int, typer.Option(help="Of the stored audio, in Hz.")] = 16_000,
    skip_bad: Annotated[bool, typer.Option(help="Leave out records with bad audio and list them.")] = True,
) -> None:
    """Read a corpus and store it as checked parquet shards.

    With --filter, what the filters drop is counted and named in filter_report.json beside the shards. A run that was
    stopped goes on, and decides nothing twice.

    Example: speechllm prepare table runs/mine table=clips.csv audio=path text=sentence language=fr
    """
    from speechllm.data.filtering import prepare_filtered
    from speechllm.data.prepare import prepare_corpus

    records = find_plugin("corpora", corpus)
    given = parse_options(records, options or [])
    chosen = _filters(filters or [], whisper)
    settings: dict[str, Any] = {"sample_rate": sample_rate, "on_error": "skip" if skip_bad else "raise"}
    reports: list[object] = []
    with counting("preparing", "records") as progress:
        if chosen:
            reports += prepare_filtered(lambda: records(**given), out, chosen, progress=progress, **settings)
        else:
            reports.append(prepare_corpus(records(**given), out, progress=progress, **settings))
    for report in reports:
        console.print(str(report), soft_wrap=True)
    results.print(out)


def _filters(specs: Sequence[str], whisper: str | None) -> list[Any]:
    """Return the filters of these specs, with the recognisers that they need."""
    from speechllm.data.filters import filter_name, make_filters

    if not any(filter_name(spec) == "cer" for spec in specs):
        return make_filters(specs)
    from speechllm.evaluation.judges import JudgeConfig, make_judges

    return make_filters(specs, make_judges(JudgeConfig(whisper=whisper)).for_language)


def tokenize(
    corpus: Annotated[Path, typer.Argument(help="Folder that `prepare` wrote.")],
    tokenizer: Annotated[Path, typer.Argument(help="Folder of a semantic tokenizer.")],
    out: Annotated[Path, typer.Argument(help="Folder for the token shards.")],
    batch_size: Annotated[int, typer.Option(help="Utterances encoded together.")] = 16,
    records_per_shard: Annotated[int, typer.Option(help="Records in one file, and in memory at once.")] = 256,
    device: Annotated[str, typer.Option(help="Where the speech encoder runs: cpu, cuda, ...")] = "cpu",
    engine: Annotated[Engine, typer.Option(help="This process alone, or workers on Ray: the same bytes.")] = "local",
    workers: Annotated[int | None, typer.Option(help="For ray; left out: as many as the cluster has room for.")] = None,
    cpus_per_worker: Annotated[float, typer.Option(help="Cores for each worker of ray.")] = 1.0,
    gpus_per_worker: Annotated[float, typer.Option(help="GPUs for each worker of ray; 0.5: two share one.")] = 0.0,
    address: Annotated[str | None, typer.Option(help="Ray cluster, `auto` or host:port; left out: here.")] = None,
) -> None:
    """Turn the audio of a prepared corpus into semantic codes.

    With --engine ray many workers share the work, each with a tokenizer of its own; the corpus and the tokenizer must
    lie where all of them see them. Either engine goes on where the other was stopped.

    Example: speechllm tokenize runs/quickstart/corpus runs/quickstart/semantic_tokenizer runs/tokens
    """
    from speechllm.data.prepare import corpus_report
    from speechllm.data.tokenize import tokenize_corpus

    total = sum(corpus_report(corpus).num_records.values())
    with counting("tokenizing", "records", total) as progress:
        sizes = {"batch_size": batch_size, "records_per_shard": records_per_shard, "progress": progress}
        if engine == "ray":
            from speechllm.data.ray_pool import RayConfig
            from speechllm.data.ray_tokenize import tokenize_on_ray

            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
            cluster = RayConfig(
                num_workers=workers, cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker, address=address
            )
            load = functools.partial(_load_tokenizer, tokenizer.absolute())
            report = tokenize_on_ray(corpus, load, out, cluster, device=device, **sizes)
        else:
            report = tokenize_corpus(corpus, _load_tokenizer(tokenizer, device), out, **sizes)
    console.print(str(report))
    results.print(out)


def _load_tokenizer(folder: Path, device: str) -> Any:
    from speechllm.tokenizers.semantic import SemanticTokenizer

    return SemanticTokenizer.from_pretrained(folder).to(device)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name: unified, semantic, codec, audiolm, soundstorm, recorded, quickstart, or a plugin's."
        ),
    ],
    config: Annotated[Path, typer.Argument(help="Its YAML config.")],
    overrides: Overrides = None,
) -> None:
    """Train by a recipe; a run that was stopped continues from its last checkpoint.

    Example: speechllm train unified recipes/own_data/config.yaml training.max_steps=2000
    """
    results.print(find_plugin("recipes", recipe)(config, overrides or []))
