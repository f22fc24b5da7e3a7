"""The steps of the quickstart: each a function of config and folder, and each continues where it was stopped."""

import inspect
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data_prep import pico
from data_prep.grammar import sentences
from recipes.quickstart.config import QuickstartConfig
from recipes.train_unified import train_unified
from speechllm.audio import Audio, load_audio
from speechllm.data.mixture import MixtureConfig
from speechllm.data.prepare import prepare_corpus, read_corpus
from speechllm.data.tokenize import tokenize_corpus
from speechllm.errors import ConfigError
from speechllm.evaluation.evaluate import evaluate_checkpoint
from speechllm.evaluation.report import write_report
from speechllm.hub import load_checkpoint, save_checkpoint
from speechllm.models.acoustic import load_acoustic
from speechllm.models.causal_lm import BaseModelConfig
from speechllm.registry import suggest
from speechllm.segments import PLAIN_TEXT
from speechllm.tasks import TaskTag
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.ctc_encoder import CTCFeatures
from speechllm.tokenizers.semantic import SemanticTokenizer, fit_semantic_tokenizer
from speechllm.training.codec import train_codec
from speechllm.training.ctc import train_ctc_encoder
from speechllm.training.soundstorm import train_soundstorm
from speechllm.training.text_lm import pretrain_text_lm
from speechllm.training.unified import UnifiedTrainConfig, history_file


def speak_corpus(config: QuickstartConfig, out: Path) -> None:
    """Let the synthesiser speak the grammar's sentences."""
    known = inspect.signature(pico.records).parameters
    for key in config.corpus:
        if key not in known:
            raise ConfigError(f"unknown key 'corpus.{key}'{suggest(key, known)} (known: {', '.join(known)})")
    prepare_corpus(pico.records(**config.corpus), out / "corpus")


def train_encoder(config: QuickstartConfig, out: Path) -> None:
    """Train the CTC encoder and cut its features into codes."""
    encoder, _ = train_ctc_encoder(out / "corpus", config.encoder, out / "encoder")
    features = CTCFeatures(encoder, config.features)
    tokenizer = fit_semantic_tokenizer(features, training_audio(out / "corpus"), config.semantic, seed=config.seed)
    tokenizer.save_pretrained(out / "semantic_tokenizer")


def training_audio(corpus: Path) -> Iterator[Audio]:
    """Yield the training speech, both sides of every pair."""
    for record in read_corpus(corpus, "train"):
        for side in (record, record.translation):
            if side is not None and side.audio is not None:
                yield load_audio(side.audio)


def make_tokens(config: QuickstartConfig, out: Path) -> None:
    """Turn the corpus into semantic codes."""
    tokenize_corpus(out / "corpus", SemanticTokenizer.from_pretrained(out / "semantic_tokenizer"), out / "tokens")


def fit_codec(config: QuickstartConfig, out: Path) -> None:
    """Fit the acoustic codes."""
    train_codec(out / "corpus", config.codec, out / "codec", seed=config.seed)


def train_text_lm(config: QuickstartConfig, out: Path) -> None:
    """Train a text LM on sentences of the grammar, held-out ones excepted, and on pairs of them."""
    languages = list(config.corpus.get("languages", ("en", "fr")))
    settings = replace(config.text_lm, extra_texts=(*config.text_lm.extra_texts, *all_tags(config, languages)))
    history = pretrain_text_lm(text_lines(config, out / "corpus", languages), settings, out / "text_lm")
    (out / "text_lm" / "history.json").write_text(json.dumps(history), encoding="utf-8")


def text_lines(config: QuickstartConfig, corpus: Path, languages: list[str]) -> list[str]:
    """Return sentences, and pairs of them as "english = french"; none that is held out, in any language."""
    held_out = set()
    for record in read_corpus(corpus):
        if record.split != "train":
            held_out |= {record.text, record.translation.text if record.translation else record.text}
    lines = []
    for sentence in sentences(languages, config.num_texts, seed=config.corpus.get("seed", 0) + 1):
        if not held_out & set(sentence.texts):
            lines += sentence.texts
            lines += [f"{a} = {b}" for a in sentence.texts for b in sentence.texts if a != b]
    return lines


def all_tags(config: QuickstartConfig, languages: list[str]) -> list[str]:
    """Return every tag of the mixture, often enough for the tokenizer to learn their words whole."""
    pairs = [(a, b) for a in languages for b in languages if a != b]
    tasks = [component.tasks for component in config.mixture if component.tasks != PLAIN_TEXT]
    return [str(TaskTag.of(names, *pair)) for names in tasks for pair in pairs] * 20


def train_lm(config: QuickstartConfig, out: Path) -> None:
    """Extend the text LM by the codes and train it on the tasks."""
    train_unified(unified_config(config, out))


def unified_config(config: QuickstartConfig, out: Path) -> UnifiedTrainConfig:
    """Return what the program for any LM is told."""
    components = [replace(component, folder=str(out / component.folder)) for component in config.mixture]
    return UnifiedTrainConfig(
        out=str(out / "lm"),
        mixture=MixtureConfig(components=components, code_noise=config.code_noise, seed=config.seed),
        training=replace(config.training, seed=config.seed),
        semantic_tokenizer=str(out / "semantic_tokenizer"),
        model=BaseModelConfig(source=str(out / "text_lm")),
        row_init=config.row_init,
        optimizer=config.optimizer,
        seed=config.seed,
    )


def train_acoustic(config: QuickstartConfig, out: Path) -> None:
    """Train SoundStorm: semantic codes and a voice in, acoustic codes out."""
    train_soundstorm(
        out / "corpus",
        SemanticTokenizer.from_pretrained(out / "semantic_tokenizer"),
        load_codec(out / "codec"),
        replace(config.acoustic, seed=config.seed),
        out / "acoustic",
        tokens_folder=out / "tokens",
    )


def join_checkpoint(config: QuickstartConfig, out: Path) -> None:
    """Put LM, tokenizers and acoustic stages into one folder."""
    lm = load_checkpoint(out / "lm")
    save_checkpoint(
        out / "checkpoint",
        lm.model,
        lm.processor,
        codec=load_codec(out / "codec"),
        acoustic=load_acoustic(out / "acoustic"),
        trained=lm.trained,
        config=config,
    )


def write_the_report(config: QuickstartConfig, out: Path) -> None:
    """Score the checkpoint on what was held out."""
    histories = {stage: read_history(path) for stage, path in history_files(out).items() if path.exists()}
    report = evaluate_checkpoint(
        out / "checkpoint", out / "corpus", config.evaluation, histories=histories, title="Quickstart"
    )
    shutil.rmtree(out / "report", ignore_errors=True)
    write_report(report, out / "report")


def history_files(out: Path) -> dict[str, Path]:
    """Return where each stage left its training curve."""
    return {
        "CTC encoder": out / "encoder" / "history.jsonl",
        "SoundStorm": out / "acoustic" / "run" / "history.jsonl",
        "text LM": out / "text_lm" / "history.json",
        "speech LM": history_file(out / "lm"),
    }


def read_history(path: Path) -> list[dict[str, float]]:
    """Return the rows of a curve that have a step and a loss."""
    text = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    return [row for row in rows if "loss" in row and "step" in row]
