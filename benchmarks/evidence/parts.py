"""What the runs share: the corpus, the tokenizers with their tokens, the text LMs. Each is made once and kept.

    build_corpus(budget, folders); build_tokens("ctc", budget, folders); build_text_lm(seed=0, budget=..., folders=...)

Only the library's public functions: the very path of the quickstart.
"""

import os
from collections.abc import Iterator

import torch

from benchmarks.evidence.plan import LANGUAGES, MIXTURES, Budget, Folders
from data_prep.grammar import sentences
from data_prep.pico import records
from speechllm.audio import Audio, load_audio
from speechllm.data.prepare import prepare_corpus, read_corpus
from speechllm.data.tokenize import tokenize_corpus
from speechllm.errors import ConfigError
from speechllm.models.causal_lm import BaseModelConfig
from speechllm.tasks import TaskTag
from speechllm.tokenizers.ctc_encoder import CTCFeatures, CTCFeaturesConfig
from speechllm.tokenizers.features import FeatureExtractor, LogMelFeatures, LogMelFeaturesConfig
from speechllm.tokenizers.pretrained_features import TransformersFeatures, TransformersFeaturesConfig
from speechllm.tokenizers.semantic import (
    CONFIG_FILE,
    SemanticTokenizer,
    SemanticTokenizerConfig,
    fit_semantic_tokenizer,
)
from speechllm.training.ctc import CTCTrainConfig, train_ctc_encoder
from speechllm.training.loop import LoopConfig
from speechllm.training.optim import OptimizerConfig
from speechllm.training.text_lm import TextLMConfig, pretrain_text_lm
from speechllm.training.trainer import TrainingConfig

WHISPER_VARIABLE = "SPEECHLLM_WHISPER_BASE"


def build_corpus(budget: Budget, folders: Folders) -> None:
    """Speak and store the corpus of the quickstart."""
    spoken = records(
        languages=LANGUAGES,
        num_sentences=budget.num_sentences,
        num_validation=1,
        num_test=budget.num_test,
        num_workers=1,
    )
    prepare_corpus(spoken, folders.corpus)


def build_tokens(name: str, budget: Budget, folders: Folders) -> None:
    """Fit (or train and fit) a semantic tokenizer on the training speech and tokenise the corpus with it."""
    folder = folders.semantic(name)
    if not (folder / CONFIG_FILE).exists():
        features = build_features(name, budget, folders)
        # Whisper's and the CTC encoder's widths vary by orders of magnitude between dimensions; log-mel's do not.
        config = SemanticTokenizerConfig(codebook_size=budget.codebook_size, standardize=name == "whisper")
        fit_semantic_tokenizer(features, training_audio(folders), config, seed=0).save_pretrained(folder)
    tokenize_corpus(folders.corpus, SemanticTokenizer.from_pretrained(folder), folders.tokens(name))


def build_features(name: str, budget: Budget, folders: Folders) -> FeatureExtractor:
    """Return the features under the codes."""
    if name == "log-mel":
        return LogMelFeatures(LogMelFeaturesConfig(frame_rate=budget.frame_rate))
    if name == "whisper":
        source = os.environ[WHISPER_VARIABLE]
        return TransformersFeatures.from_source(TransformersFeaturesConfig(source=source, frame_rate=budget.frame_rate))
    if name != "ctc":
        raise ConfigError(f"no tokenizer {name!r} here; known: log-mel, ctc, whisper")
    loop = LoopConfig(
        steps=budget.ctc_steps,
        warmup_steps=min(30, budget.ctc_steps // 2),
        optimizer=OptimizerConfig(kind="muon", learning_rate=6e-3, weight_decay=0.01),
        bf16=True,
    )
    config = CTCTrainConfig(frame_rate=budget.frame_rate, loop=loop)
    encoder, _ = train_ctc_encoder(folders.corpus, config, folders.root / "ctc")
    return CTCFeatures(encoder, CTCFeaturesConfig(layers=(3,)))


def training_audio(folders: Folders) -> Iterator[Audio]:
    """Yield the training speech, both sides of every pair."""
    for record in read_corpus(folders.corpus, "train"):
        for side in (record, record.translation):
            if side is not None and side.audio is not None:
                yield load_audio(side.audio)


def build_text_lm(seed: int, budget: Budget, folders: Folders) -> None:
    """Pretrain the text LM of a seed, unless it is there."""
    folder = folders.text_lm(seed)
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = TextLMConfig(
        vocab_size=budget.vocab_size,
        model=BaseModelConfig(hidden_size=budget.hidden_size, num_layers=budget.num_layers, seed=seed),
        optimizer=OptimizerConfig(kind="muon", learning_rate=budget.learning_rate),
        training=training_config(budget, budget.text_steps, seed),
        extra_texts=tuple(tags()) * 20,
    )
    pretrain_text_lm(pretraining_texts(budget, folders), config, folder)


def pretraining_texts(budget: Budget, folders: Folders) -> list[str]:
    """Return lines of text: sentences of both languages, and pairs of them as "english = french" and back.

    A sentence that is held out, in either language, stands in none. There are more than are spoken: text is easier
    to come by than speech, which is why one starts from a text LM.
    """
    held_out = set()
    for split in ("validation", "test", "test_speakers"):
        for record in read_corpus(folders.corpus, split):
            assert record.translation is not None, "Pico's records are parallel"
            held_out |= {record.text, record.translation.text}
    lines = []
    for sentence in sentences(LANGUAGES, budget.num_texts, seed=1):
        first, second = sentence.texts
        if not held_out & {first, second}:
            lines += [first, second, f"{first} = {second}", f"{second} = {first}"]
    return lines


def tags() -> list[str]:
    """Return every tag that a run writes in front of an example."""
    pairs = (LANGUAGES, LANGUAGES[::-1])
    return sorted({str(TaskTag.of(task, *pair)) for tasks in MIXTURES.values() for task in tasks for pair in pairs})


def training_config(budget: Budget, steps: int, seed: int) -> TrainingConfig:
    """Return the trainer's settings: bfloat16 autocast, the CPU, no checkpoints."""
    return TrainingConfig(
        max_steps=steps,
        max_tokens=budget.max_tokens,
        rows_per_batch=budget.rows_per_batch,
        warmup_steps=min(20, steps // 4),
        bf16=True,
        cpu=True,
        log_every=max(1, steps // 4),
        show_progress=False,
        seed=seed,
    )


def use_one_thread() -> None:
    """Keep this process on one core: the pool has as many processes as there are cores to use."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
