"""Pretrain a small text LM, so that speech is added to a model that already writes the languages.

    report = pretrain_text_lm(sentences, TextLMConfig(training=TrainingConfig(max_steps=200)), "text_lm")
    model, tokenizer = load_base_lm(BaseModelConfig(source="text_lm"))     # the same path as any LLM

Plain next-token prediction on sentences, each closed by EOS, in packed rows: the same trainer as the
unified LM, with a loss on every id but the first. It stands in for the LLM's own pretraining where none
can be downloaded. (That pretrained text weights matter: AudioPaLM, arXiv:2306.12925, table 5.)
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from speechllm.config import config_to_dict
from speechllm.data.collate import Collator
from speechllm.data.packing import PackedRows
from speechllm.errors import CheckpointError, DataError
from speechllm.hub import REPLACEABLE
from speechllm.models.causal_lm import BaseModelConfig, load_base_lm
from speechllm.models.text_lm import train_bpe
from speechllm.processor import EncodedExample
from speechllm.training.loop import save_once
from speechllm.training.optim import OptimizerConfig
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer


@dataclass(frozen=True, kw_only=True)
class TextLMConfig:
    """A small text LM and how long it is trained."""

    vocab_size: int = 600
    "Tokens of the byte-level BPE, at most."
    model: BaseModelConfig = field(default_factory=BaseModelConfig)
    "Size of the Llama; `source` and `text_tokenizer` are filled in."
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(kind="muon", learning_rate=4e-3))
    "How it steps."
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(max_steps=200))
    "How long."
    extra_texts: tuple[str, ...] = ()
    "Texts that the tokenizer should cover beside the corpus, for example task tags. They are not trained on."


def pretrain_text_lm(texts: Sequence[str], config: TextLMConfig, folder: str | Path) -> list[dict[str, float]]:
    """Train tokenizer and model on `texts`, write both to `folder` (whole or not at all), return the log.

    Raises:
        DataError: there is no text.
        CheckpointError: the folder holds something else than a text LM.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    texts = [" ".join(text.split()) for text in texts if text.strip()]
    if not texts:
        raise DataError("there is no text to train a text LM on; give a corpus with transcripts")
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    tokenizer = train_bpe([*texts, *config.extra_texts], vocab_size=config.vocab_size)
    tokenizer.save_pretrained(partial)
    model, _ = load_base_lm(replace(config.model, source="random", text_tokenizer=str(partial)))
    seed = config.training.seed
    rows = PackedRows(text_examples(texts, tokenizer, seed=seed), config.training.max_tokens)
    collator = Collator(pad_id=cast(int, tokenizer.pad_token_id), row_tokens=rows.max_tokens)
    settings = {"model": config_to_dict(config.model), "vocab_size": config.vocab_size, "texts": _digest(texts, config)}
    trainer = UnifiedTrainer(
        model, rows, collator, None, config.training, config.optimizer, partial / "trainer", settings=settings
    )
    history = trainer.run()

    def save() -> None:
        model.save_pretrained(partial)
        shutil.rmtree(partial / "trainer", ignore_errors=True)
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(partial, folder)

    save_once(save)
    return history


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a text LM: a wrong path must not cost somebody's files."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, expected a folder for the text LM; choose another path")
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    foreign = [entry for entry in entries if entry.is_dir() or entry.suffix not in REPLACEABLE]
    if entries and (foreign or not (folder / "config.json").is_file()):
        raise CheckpointError(
            f"{folder} holds {(foreign or entries)[0].name} and is no text LM; choose an empty folder"
        )


def _digest(texts: Sequence[str], config: TextLMConfig) -> str:
    return hashlib.sha256(json.dumps([list(texts), config.extra_texts]).encode()).hexdigest()


def text_examples(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> Callable[[int], EncodedExample]:
    """Return the function from i to example i: every text once per epoch, in a new order each time."""
    eos = [cast(int, tokenizer.eos_token_id)]
    encoded = [np.array([*cast(list, tokenizer(text, add_special_tokens=False)["input_ids"]), *eos]) for text in texts]

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(len(encoded))

    def example(index: int) -> EncodedExample:
        epoch, place = divmod(index, len(encoded))
        ids = encoded[order(epoch)[place]]
        return EncodedExample(ids, np.ones(len(ids), bool))

    return example
