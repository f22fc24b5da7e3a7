"""Train a SoundStream codec on prepared corpora or folders of audio, from a config.

    python -m recipes.train_codec recipes/codec_16khz/config.yaml corpora='[runs/corpus]' out=runs/codec
    python -m recipes.train_codec recipes/codec_16khz/config.yaml audio='[recordings]' train.loop.steps=1000

The result is a codec folder for `load_codec` and for the recipes that take one; a killed run goes on when called
again. The folder report/ measures it, level by level, on recordings that were held out, with plots and samples.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipes.codec_report import write_codec_report
from recipes.kept_config import remember_config
from speechllm.config import load_config
from speechllm.errors import ConfigError
from speechllm.training.loop import HISTORY_FILE
from speechllm.training.neural_codec import NeuralCodecTrainConfig, train_neural_codec
from speechllm.training.recordings import load_recordings

REPORT_FOLDER = "report"


@dataclass(frozen=True, kw_only=True)
class CodecRecipeConfig:
    """One codec: where its audio comes from, how it is trained."""

    train: NeuralCodecTrainConfig
    "Sizes, losses, batches, loop."
    corpora: list[str] = field(default_factory=list)
    "Folders that `prepare` wrote; their `train` splits are used, both sides."
    audio: list[str] = field(default_factory=list)
    "Folders of audio files, at any depth, format and rate."
    out: str = "runs/codec"
    "Folder for the codec."
    held_out_share: float = 0.02
    "Share of the recordings that are kept for the report; at least one."
    max_measured: int = 50
    "Held-out recordings in the report."
    num_samples: int = 3
    "Held-out recordings that the report lets one listen to."


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train by a config file; returns the codec's folder."""
    config = load_config(CodecRecipeConfig, config_path, overrides)
    remember_config(config, config.out)
    return train_codec_recipe(config)


def train_codec_recipe(config: CodecRecipeConfig) -> Path:
    """Train, save, measure; return the codec's folder."""
    if not config.corpora and not config.audio:
        raise ConfigError("corpora and audio are both empty; name folders, for example audio='[recordings]'")
    out = Path(config.out).resolve()
    for folder in config.audio:
        if out.is_relative_to(Path(folder).expanduser().resolve()):
            raise ConfigError(
                f"out = {config.out} lies in the audio folder {folder}: the report's samples would be trained on; "
                "choose an out beside it"
            )
    sample_rate = config.train.codec.sample_rate
    recordings = load_recordings(corpora=config.corpora, folders=config.audio, sample_rate=sample_rate)
    training, held_out = recordings.split(config.held_out_share, seed=config.train.loop.seed)
    codec, report = train_neural_codec(training, config.train, config.out)
    chosen = [held_out.samples(i) for i in range(min(len(held_out), config.max_measured))]
    measured = [waveform for waveform in chosen if len(waveform)]
    codec.to("cpu")
    facts = {
        "steps": report.steps,
        "seconds": report.seconds,
        "parameters": sum(parameter.numel() for parameter in codec.parameters()),
        "fingerprint": codec.fingerprint,
        "num_training_recordings": len(training),
        "num_measured_recordings": len(measured),
    }
    lines = (Path(config.out) / "run" / HISTORY_FILE).read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    write_codec_report(
        codec, measured, facts, history, Path(config.out) / REPORT_FOLDER, num_samples=config.num_samples
    )
    return Path(config.out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
