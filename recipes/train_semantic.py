"""Fit a semantic tokenizer on prepared corpora, from a config.

    python -m recipes.train_semantic recipes/NAME/semantic.yaml corpora='[runs/corpus]' out=runs/semantic
    speechllm train semantic recipes/NAME/semantic.yaml

Three kinds of features: the log-mel spectrogram, a transformers speech encoder (Whisper, HuBERT, ...), and an encoder
of our own that is first trained here with a CTC loss. Codes are fitted on training audio alone, and what is finished
is kept.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recipes.kept_config import remember_config
from speechllm.audio import Audio, load_audio
from speechllm.config import load_config
from speechllm.data.prepare import corpus_report, read_corpus
from speechllm.errors import ConfigError
from speechllm.tokenizers.ctc_encoder import CTCFeatures
from speechllm.tokenizers.features import FeatureExtractor, LogMelFeatures, LogMelFeaturesConfig
from speechllm.tokenizers.pretrained_features import TransformersFeatures, TransformersFeaturesConfig
from speechllm.tokenizers.semantic import CONFIG_FILE, SemanticTokenizerConfig, fit_semantic_tokenizer
from speechllm.training.ctc import CTCTrainConfig, train_ctc_encoder


@dataclass(frozen=True, kw_only=True)
class SemanticTrainConfig:
    """One tokenizer: where its audio comes from, what it looks at, how it is cut into codes."""

    kind: Literal["log-mel", "transformers", "ctc"]
    "Features under the codes; the section of that name says more."
    corpora: list[str] = field(default_factory=list)
    "Folders that `prepare` wrote; their `train` splits are used. A recipe of several steps fills them in."
    out: str = "runs/semantic"
    "Folder for the tokenizer."
    log_mel: LogMelFeaturesConfig = field(default_factory=LogMelFeaturesConfig)
    "For kind log-mel."
    transformers: TransformersFeaturesConfig | None = None
    "For kind transformers."
    ctc: CTCTrainConfig = field(default_factory=CTCTrainConfig)
    "For kind ctc: the encoder that is trained first, on the transcripts of the first corpus."
    tokenizer: SemanticTokenizerConfig = field(default_factory=SemanticTokenizerConfig)
    "Codebook size, standardisation, k-means."
    max_records: int = 1000
    "Records of each corpus that k-means sees, drawn by the seed; both sides of a parallel record."
    device: str | None = None
    "Where the speech encoder makes features: cpu, cuda, ...; None: on the CPU, or where it was trained just now."
    seed: int = 0
    "Of that draw and of k-means."


def main(config_path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train by a config file; returns the tokenizer's folder."""
    config = load_config(SemanticTrainConfig, config_path, overrides)
    remember_config(config, config.out)
    return train_semantic(config)


def train_semantic(config: SemanticTrainConfig) -> Path:
    """Fit the tokenizer, unless its folder has one already, and return the folder."""
    if not config.corpora:
        raise ConfigError("corpora is empty; name the folders of prepared corpora, for example corpora='[runs/corpus]'")
    out = Path(config.out)
    if (out / CONFIG_FILE).exists():
        return out
    features = features_of(config)
    if config.device is not None:
        features.to(config.device)
    tokenizer = fit_semantic_tokenizer(features, training_audio(config), config.tokenizer, seed=config.seed)
    tokenizer.save_pretrained(out)
    return out


def features_of(config: SemanticTrainConfig) -> FeatureExtractor:
    """Return the features that the config asks for."""
    if config.kind == "log-mel":
        return LogMelFeatures(config.log_mel)
    if config.kind == "ctc":
        encoder, _ = train_ctc_encoder(config.corpora[0], config.ctc, Path(config.out).with_name("ctc_encoder"))
        return CTCFeatures(encoder)
    if config.transformers is None:
        raise ConfigError("kind = 'transformers' needs a section transformers with the encoder's source")
    return TransformersFeatures.from_source(config.transformers)


def training_audio(config: SemanticTrainConfig) -> Iterator[Audio]:
    """Yield the chosen training audio, the corpora taking turns until each has run out."""
    streams = [_corpus_audio(folder, config.max_records, config.seed) for folder in config.corpora]
    while streams:
        for stream in list(streams):
            audio = next(stream, None)
            if audio is None:
                streams.remove(stream)
            else:
                yield audio


def _corpus_audio(folder: str, max_records: int, seed: int) -> Iterator[Audio]:
    num_records = corpus_report(folder).num_records.get("train", 0)
    chosen = set(random.Random(seed).sample(range(num_records), min(max_records, num_records)))
    for index, record in enumerate(read_corpus(folder, "train")):
        for side in (record, record.translation) if index in chosen else ():
            if side is not None and side.audio is not None:
                yield load_audio(side.audio)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
