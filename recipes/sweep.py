"""Train variants of one config, score each alike, print one table: what an ablation is.

    python -m recipes.sweep recipes/embedding_inits/config.yaml [key=value ...]

    base: {...}                       # a config of recipes/train_unified.py
    variants:
      finetuned: {}                   # the base as it is
      scratch: {model: {source: random, text_tokenizer: runs/text_lm}}
    seeds: [0, 1, 2]

A variant changes keys of the base, sections key by key and lists as a whole; each is trained once with each seed by the
program itself. Scored are the loss on held-out examples, of text and of audio ids apart, before and after; with
`evaluation` also error rates and BLEU on prepared corpora. Every run is a folder below the base's `out`: one that was
stopped goes on, a finished one is kept, and variants and seeds can be added later.
"""

import json
import math
import re
import shutil
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import PreTrainedModel

from recipes.kept_config import remember_config
from recipes.train_unified import train_unified
from speechllm.config import build_config, load_config
from speechllm.data.collate import collate_rows
from speechllm.data.mixture import Mixture, load_mixture
from speechllm.data.packing import pack
from speechllm.errors import ConfigError
from speechllm.evaluation.evaluate import EvaluationConfig, evaluate_checkpoint
from speechllm.evaluation.results import MODEL
from speechllm.hub import load_checkpoint
from speechllm.pipelines.system import SpeechSystem
from speechllm.training.trainer import target_losses
from speechllm.training.unified import UnifiedTrainConfig, load_extended_lm, training_folder
from speechllm.vocabulary import SEMANTIC

Scores: TypeAlias = dict[str, float]
"Quantity -> value of one run."
Summary: TypeAlias = dict[str, dict[str, tuple[float, float]]]
"Variant -> quantity -> (mean over seeds, largest minus smallest)."
HEADLINES = ("WER", "BLEU", "ASR-BLEU")
SCORES_FILE = "scores.json"


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """The examples whose loss is taken."""

    split: str = "validation"
    "Part of the mixture's corpora, by its name there."
    num_examples: int = 256
    "How many; the same for all variants that have the same mixture."

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise ConfigError(f"num_examples = {self.num_examples}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class SweepEvaluation:
    """What is decoded and scored."""

    corpora: list[str]
    "Folders that `prepare` wrote; scores are means over them and their directions."
    settings: EvaluationConfig = field(default_factory=EvaluationConfig)
    "How. Of its tasks each variant is asked those that it was trained on."
    device: str = "cpu"
    "Where."


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A base, what is changed in it, and what is looked at."""

    base: dict[str, Any]
    "Keys of `UnifiedTrainConfig`; `out` is the folder of the sweep, seeds are filled in."
    variants: dict[str, dict[str, Any]]
    "By name: the keys of the base that are different."
    seeds: list[int] = field(default_factory=lambda: [0])
    "Each variant is trained once with each: they rule the new rows, the order of the data and dropout."
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    "What the losses are taken on."
    evaluation: SweepEvaluation | None = None
    "What is decoded and scored; None: losses alone."
    keep_checkpoints: bool = False
    "Keep the trained models."

    def __post_init__(self) -> None:
        if not self.variants or not self.seeds:
            raise ConfigError("variants and seeds want at least one each")
        for name in self.variants:
            if not re.fullmatch(r"[\w.+-]+", name):
                raise ConfigError(f"variant {name!r} is to be the name of a folder: letters, digits, and . + - _ alone")
            self.train_config(name, self.seeds[0])

    @property
    def out(self) -> Path:
        """Folder of the sweep."""
        return Path(str(self.base.get("out", "")))

    def train_config(self, variant: str, seed: int) -> UnifiedTrainConfig:
        """Return what is trained.

        Raises:
            ConfigError: a key of the base or of the variant does not fit.
        """
        config = build_config(UnifiedTrainConfig, merged(self.base, self.variants[variant]), where=f"variant {variant}")
        return replace(
            config, seed=seed, out=str(self.out / f"{variant}-{seed}" / "checkpoint"),
            mixture=replace(config.mixture, seed=seed), training=replace(config.training, seed=seed),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What one run depends on; it lies beside the run's scores."""

    train: UnifiedTrainConfig
    held_out: HeldOutConfig
    evaluation: SweepEvaluation | None


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with keys changed: sections key by key, all else as a whole."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> Summary:
    """Run what is missing, print the table and keep it as table.md; returns what is in it."""
    config = load_config(SweepConfig, config_path, overrides)
    scores: dict[str, list[Scores]] = {name: [] for name in config.variants}
    for seed in config.seeds:  # whole seeds first: a sweep that is stopped leaves a table
        for name in config.variants:
            run = RunConfig(
                train=config.train_config(name, seed), held_out=config.held_out, evaluation=config.evaluation
            )
            scores[name].append(train_and_score(run, keep_checkpoint=config.keep_checkpoints))
    summary = {name: _summarise(found) for name, found in scores.items()}
    (config.out / "table.md").write_text(markdown(summary) + "\n", encoding="utf-8")
    print_table(summary, len(config.seeds))
    return summary


def train_and_score(run: RunConfig, *, keep_checkpoint: bool) -> Scores:
    """Train and score one run, unless its scores are there."""
    out = Path(run.train.out)
    folder = out.parent
    remember_config(run, folder)
    if (folder / SCORES_FILE).exists():
        return json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
    scores: Scores = {}
    if run.train.start_from is None:
        base = load_extended_lm(run.train)
        scores |= _losses(run, base.model, base.processor, "before")
        del base
    train_unified(run.train)
    trained = load_checkpoint(out)
    scores |= _losses(run, trained.model, trained.processor, "after")
    if run.evaluation is not None:
        scores |= _evaluate(run.evaluation, out, {part.tasks for part in run.train.mixture.components})
    partial = folder / f".{SCORES_FILE}.partial"
    partial.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / SCORES_FILE)
    shutil.rmtree(training_folder(run.train), ignore_errors=True)
    if not keep_checkpoint:
        shutil.rmtree(out)
    return scores


def _losses(run: RunConfig, model: PreTrainedModel, processor: Any, when: str) -> Scores:
    components = [replace(component, split=run.held_out.split) for component in run.train.mixture.components]
    config = replace(run.train.mixture, components=components, code_noise=0.0, seed=0)
    text, audio = held_out_losses(
        model, load_mixture(config, processor), run.held_out.num_examples, run.train.training.max_tokens
    )
    return {f"text loss {when}": text, f"audio loss {when}": audio}


@torch.no_grad()
def held_out_losses(
    model: PreTrainedModel, mixture: Mixture, num_examples: int, max_tokens: int
) -> tuple[float, float]:
    """Return the mean loss of text ids and of audio ids over the first examples that fit; NaN where there is none."""
    processor = mixture.processor
    head, first_audio = typing.cast(nn.Module, model.get_output_embeddings()), processor.vocabulary[SEMANTIC].start
    sums, counts = np.zeros(2), np.zeros(2)
    model.eval()
    for row in pack((mixture.example(i) for i in range(num_examples)), max_tokens):
        batch = {name: value.to(model.device) for name, value in collate_rows([row], processor.eos_id).items()}
        losses, targets, _ = target_losses(model, batch, head)
        for modality, chosen in enumerate((targets < first_audio, targets >= first_audio)):
            sums[modality] += float(losses[chosen].sum())
            counts[modality] += int(chosen.sum())
    text, audio = np.divide(sums, counts, out=np.full(2, np.nan), where=counts > 0).tolist()
    return text, audio


def _evaluate(config: SweepEvaluation, checkpoint: Path, trained: set[str]) -> Scores:
    """Return WER and BLEU of each task by output, as means over corpora, splits and directions."""
    settings = replace(config.settings, tasks=tuple(task for task in config.settings.tasks if task in trained))
    system = SpeechSystem.from_pretrained(str(checkpoint), device=config.device)
    found: dict[str, list[float]] = {}
    for corpus in config.corpora if settings.tasks else ():
        for m in evaluate_checkpoint(system, corpus, settings).find(system=MODEL):
            if m.score.name in HEADLINES:
                value = math.nan if m.score.value is None else m.score.value
                found.setdefault(f"[{m.task}] {m.output} {m.score.name}", []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _summarise(runs: Sequence[Scores]) -> dict[str, tuple[float, float]]:
    names = dict.fromkeys(name for run in runs for name in run)
    values = {name: [run.get(name, math.nan) for run in runs] for name in names}
    return {name: (float(np.mean(v)), float(np.max(v) - np.min(v))) for name, v in values.items()}


def _rows(summary: Summary, digits: int = 3) -> Iterator[list[str]]:
    """Yield the header, then a line for each variant: means and, in brackets, largest minus smallest over seeds."""
    names = list(dict.fromkeys(name for scores in summary.values() for name in scores))
    yield ["variant", *names]
    for variant, scores in summary.items():
        cells = [scores.get(name, (math.nan, 0.0)) for name in names]
        yield [
            variant,
            *(
                "-" if math.isnan(mean) else f"{mean:.{digits}f}" + (f" ({spread:.{digits}f})" if spread else "")
                for mean, spread in cells
            ),
        ]


def markdown(summary: Summary) -> str:
    """Return the table in Markdown."""
    header, *rows = _rows(summary)
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def print_table(summary: Summary, num_seeds: int) -> None:
    """Print the table."""
    header, *rows = _rows(summary)
    table = Table(*header, title=f"{num_seeds} seed(s) each; losses in nats on held-out examples")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
