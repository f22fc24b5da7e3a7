"""Which runs are made, from what, and with how much: the design of the miniature.

    for spec in plan(("log-mel", "ctc"), seeds=(0, 1, 2)):
        spec.key            # "ctc-text-combined-0"

Every run differs from the base run (CTC tokens, pretrained text weights, combined tasks in the mixture) in one thing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Start: TypeAlias = Literal["text", "scratch"]
Mix: TypeAlias = Literal["combined", "direct"]

MIXTURES: dict[Mix, tuple[str, ...]] = {"combined": ("ASR", "AST", "ASR AST"), "direct": ("ASR", "AST")}
"Tasks of each mixture, in equal shares: those that write text, like the first mixture of AudioPaLM, section 4.2."
OUTPUTS: dict[Mix, str] = {"combined": "ASR AST", "direct": "AST"}
"What a model of each mixture is asked to write: the chain carries a transcript (WER) and a translation (BLEU)."
BASE_TOKENIZER = "ctc"
LADDER = ("log-mel", "ctc", "whisper")
"From features that know nothing of words to an encoder that was trained on 680,000 hours of transcribed speech."
LANGUAGES = ("en", "fr")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training run."""

    tokenizer: str
    start: Start
    mix: Mix
    seed: int

    @property
    def key(self) -> str:
        """Name of the run's file."""
        return f"{self.tokenizer}-{self.start}-{self.mix}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The same for every run: sizes, steps, data."""

    num_sentences: int = 1400
    "Spoken training sentences, each in both languages."
    num_test: int = 150
    "Unseen sentences in each of the splits test and test_speakers."
    codebook_size: int = 1024
    "Codes of every tokenizer."
    frame_rate: float = 12.5
    "Codes per second of every tokenizer."
    ctc_steps: int = 600
    "Steps of the CTC encoder; the codes are cut from its third layer."
    vocab_size: int = 600
    "Tokens of the byte-level BPE."
    num_texts: int = 8000
    "Sentence pairs of the text pretraining, none of them held out."
    text_steps: int = 60
    "Steps of the text pretraining."
    hidden_size: int = 256
    num_layers: int = 4
    steps: int = 120
    "Steps of the training on speech."
    max_tokens: int = 256
    "Length of a packed row."
    rows_per_batch: int = 8
    learning_rate: float = 4e-3
    "Muon's and AdamW's peak rate, in both trainings."


TINY = Budget(
    num_sentences=40, num_test=6, codebook_size=16, ctc_steps=3, vocab_size=300, num_texts=60, text_steps=2,
    hidden_size=32, num_layers=1, steps=2, max_tokens=256, rows_per_batch=2,
)  # fmt: skip
"To see that it runs."


@dataclass(frozen=True)
class Folders:
    """Where everything lies."""

    root: Path
    given_corpus: Path | None = None
    "A prepared corpus to use instead of speaking one."
    given_ctc: Path | None = None
    "A semantic tokenizer to use as `ctc` instead of training one."

    @property
    def corpus(self) -> Path:
        """The prepared corpus."""
        return self.given_corpus or self.root / "corpus"

    def semantic(self, tokenizer: str) -> Path:
        """A semantic tokenizer."""
        if tokenizer == "ctc" and self.given_ctc is not None:
            return self.given_ctc
        return self.root / "semantic" / tokenizer

    def tokens(self, tokenizer: str) -> Path:
        """The corpus as its codes."""
        return self.root / "tokens" / tokenizer

    def text_lm(self, seed: int) -> Path:
        """The pretrained text LM of a seed."""
        return self.root / "text_lm" / str(seed)

    def run(self, key: str) -> Path:
        """The result of a run."""
        return self.root / "runs" / f"{key}.json"


def plan(tokenizers: Sequence[str], seeds: Sequence[int]) -> list[RunSpec]:
    """Return the runs, those of the first seed first, so that a stop leaves whole seeds."""
    runs = []
    for seed in seeds:
        runs += [
            RunSpec(tokenizer=BASE_TOKENIZER, start="text", mix="combined", seed=seed),
            RunSpec(tokenizer=BASE_TOKENIZER, start="scratch", mix="combined", seed=seed),
            RunSpec(tokenizer=BASE_TOKENIZER, start="text", mix="direct", seed=seed),
        ]
        others = [name for name in tokenizers if name != BASE_TOKENIZER]
        runs += [RunSpec(tokenizer=name, start="text", mix="combined", seed=seed) for name in others]
    return runs
