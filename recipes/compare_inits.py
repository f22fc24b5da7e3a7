"""Compare the ways in which rows of new ids can start, on token shards that are there.

    python -m recipes.compare_inits recipes/embedding_inits/config.yaml [key=value ...]

Each start and seed is one short training; what is scored is the loss on held-out examples, of text and of audio ids
apart, before and after. Each finished one is a file in `out`, so that a comparison that was stopped goes on.
"""

import json
import shutil
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import PreTrainedModel

from recipes.kept_config import remember_config
from speechllm.config import load_config
from speechllm.data.collate import collate_rows
from speechllm.data.mixture import Mixture, load_mixture
from speechllm.data.packing import pack
from speechllm.errors import ConfigError
from speechllm.models.embedding_init import RowInit
from speechllm.processor import UnifiedProcessor
from speechllm.training.trainer import target_losses
from speechllm.training.unified import (
    UnifiedTrainConfig,
    finished_model,
    load_extended_lm,
    make_trainer,
    training_folder,
)
from speechllm.vocabulary import SEMANTIC

NAMES: tuple[str, ...] = ("text before", "audio before", "text after", "audio after")


@dataclass(frozen=True, kw_only=True)
class CompareInitsConfig:
    """What is trained, and how often."""

    train: UnifiedTrainConfig
    "One run; `row_init`, `seed` and the folder below `out` are filled in."
    inits: list[RowInit] = field(default_factory=lambda: list(typing.get_args(RowInit)))
    "The starts that are compared."
    seeds: list[int] = field(default_factory=lambda: [0])
    "Each start is trained once with each: they rule the new rows, the order of the data and dropout."
    split: str = "validation"
    "Part of the corpora, by its name there, that is scored."
    num_examples: int = 256
    "How many examples of it are scored."

    def __post_init__(self) -> None:
        if self.train.start_from is not None:
            raise ConfigError("train.start_from is set, but that model has its new rows already; give train.model")
        if not self.inits or not self.seeds or self.num_examples < 1:
            raise ConfigError("inits, seeds and num_examples want at least one each")


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> dict[str, dict[str, tuple[float, float]]]:
    """Run what is missing and print the table; returns {init: {quantity: (mean, spread over seeds)}}."""
    config = load_config(CompareInitsConfig, config_path, overrides)
    out = Path(config.train.out)
    remember_config(config, out)
    scores: dict[str, list[dict[str, float]]] = {init: [] for init in config.inits}
    for seed in config.seeds:
        for init in config.inits:
            scores[init].append(compare_one(config, init, seed, out / f"{init}-{seed}.json"))
    summary = {
        init: {name: _mean_and_spread([s[name] for s in found]) for name in NAMES} for init, found in scores.items()
    }
    print_table(summary, len(config.seeds))
    return summary


def compare_one(config: CompareInitsConfig, init: RowInit, seed: int, path: Path) -> dict[str, float]:
    """Train one start with one seed, unless its file is there, and return its held-out losses."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    mixture_config = replace(config.train.mixture, seed=seed)
    held_out = [replace(component, split=config.split) for component in mixture_config.components]
    train = replace(
        config.train, row_init=init, seed=seed, out=str(path.with_suffix("")), mixture=mixture_config,
        training=replace(config.train.training, seed=seed),
    )  # fmt: skip
    base = load_extended_lm(train)
    scored = load_mixture(replace(mixture_config, components=held_out, code_noise=0.0, seed=0), base.processor)
    before = held_out_losses(base.model, scored, config.num_examples, train.training.max_tokens)
    trainer = make_trainer(base.model, load_mixture(mixture_config, base.processor), train)
    trainer.run()
    after = held_out_losses(finished_model(trainer), scored, config.num_examples, train.training.max_tokens)
    score = dict(zip(NAMES, (*before, *after), strict=True))
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    shutil.rmtree(training_folder(train), ignore_errors=True)
    return score


@torch.no_grad()
def held_out_losses(
    model: PreTrainedModel, mixture: Mixture, num_examples: int, max_tokens: int
) -> tuple[float, float]:
    """Return the mean loss of text ids and of audio ids over the first examples that fit; NaN where there is none."""
    processor: UnifiedProcessor = mixture.processor
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


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.max(values) - np.min(values))


def print_table(summary: dict[str, dict[str, tuple[float, float]]], num_seeds: int) -> None:
    """Print one line per start: means over seeds and, with several, in brackets largest minus smallest."""
    table = Table("init", *NAMES, title=f"held-out loss in nats, {num_seeds} seed(s) each")
    for init, scores in sorted(summary.items(), key=lambda item: item[1]["audio after"][0]):
        values = (f"{mean:.3f}" + (f" ({spread:.3f})" if num_seeds > 1 else "") for mean, spread in scores.values())
        table.add_row(init, *values)
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
