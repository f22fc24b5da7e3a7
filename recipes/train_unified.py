"""Train the unified LM: text in, speech in, text out, speech out.

    python -m recipes.train_unified CONFIG [key=value ...]
    accelerate launch recipes/train_unified.py CONFIG [key=value ...]
    speechllm train unified CONFIG [key=value ...]

This is the program. Records have become shards of codes (`speechllm prepare`, `speechllm tokenize`); here
they become tagged examples, packed rows, and gradients of a stock causal LM with a longer vocabulary.
A run that was stopped, at any point, goes on from its last checkpoint (`training.save_every`; without it from the
start) to the very same weights.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from torch import nn

from recipes.kept_config import remember_config, require_same_config
from speechllm.config import load_config
from speechllm.data.mixture import load_mixture
from speechllm.hub import TRAINING_CONFIG_FILE, save_checkpoint
from speechllm.models.adapters import save_adapters
from speechllm.processor import MANIFEST_FILE
from speechllm.training.checks import check_training, print_report
from speechllm.training.sharding import whole_model
from speechllm.training.unified import (
    UnifiedTrainConfig,
    adapter_folder,
    all_trained_for,
    load_extended_lm,
    make_trainer,
    merged_model,
    save_history,
    training_folder,
)


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train by a config file; returns the folder of the checkpoint."""
    config = load_config(UnifiedTrainConfig, config_path, overrides)
    require_same_config(
        config, Path(config.out) / TRAINING_CONFIG_FILE
    )  # a finished run keeps its own in the checkpoint
    remember_config(config, training_folder(config))
    return train_unified(config)


def train_unified(config: UnifiedTrainConfig) -> Path:
    """Train, unless the checkpoint is there already, and return its folder."""
    out = Path(config.out)
    if (out / MANIFEST_FILE).exists():
        return out
    base = load_extended_lm(config)  # a stock decoder with rows for audio
    mixture = load_mixture(config.mixture, base.processor)  # example i is a function of (seed, i)
    trainer = make_trainer(base.model, mixture, config)  # packed rows, loss on targets
    report = check_training(trainer, mixture, config)
    if trainer.is_world_process_zero() and (config.training.show_progress or report.errors):
        print_report(report)
    report.raise_if_failed()
    history = trainer.run()
    model = whole_model(trainer.accelerator, cast(nn.Module, trainer.model))  # gathered, where it was sharded
    if trainer.is_world_process_zero():
        if config.lora is not None:
            save_adapters(model, base.processor.vocabulary, adapter_folder(config))
        save_history(history, out)
        save_checkpoint(  # one reloadable folder
            out, merged_model(model), base.processor, codec=base.codec, acoustic=base.acoustic,
            trained=all_trained_for(base, mixture, config), config=config,
        )  # fmt: skip
    trainer.accelerator.wait_for_everyone()
    return out


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
