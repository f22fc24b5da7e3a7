"""How a recorded recipe comes to speak, and how its speech is scored: the optional sections `sound` and `evaluation`.

    sound:                      # a codec and a SoundStorm, fitted to the training speech of one corpus
      corpus: open
      codec: {mel_rvq: {num_codebooks: 6, codebook_size: 512}}
      soundstorm: {num_codebooks: 6, at_once: true, loop: {steps: 320}}
    evaluation:                 # of the last stage, one report for each corpus that stands here
      open: {tasks: [AST, TTS, S2ST], splits: [test], judge: {english: both, whisper: openai/whisper-base}}

With `sound` the checkpoint of every stage has codec/ and acoustic/ and is a whole system: `speechllm speak` works.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recipes.acoustic_parts import CodecChoice, make_codec
from recipes.quickstart.steps import read_history
from speechllm.evaluation.evaluate import EvaluationConfig, evaluate_checkpoint
from speechllm.evaluation.report import JSON_FILE, write_report
from speechllm.hub import ACOUSTIC_FOLDER, CODEC_FOLDER
from speechllm.nn.pretrained import CONFIG_FILE
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.soundstorm import SoundStormStageConfig, train_soundstorm


@dataclass(frozen=True, kw_only=True)
class SoundConfig:
    """From semantic codes to a waveform."""

    corpus: str
    "Name of the corpus of the recipe whose training speech both are fitted to."
    codec: CodecChoice = field(default_factory=CodecChoice)
    "Acoustic codes."
    soundstorm: SoundStormStageConfig
    "The model that writes them."


def make_sound(config: SoundConfig, corpus: Path, tokens: str, semantic: Path, out: Path) -> None:
    """Write `out`/codec and `out`/acoustic, what is not there yet."""
    if not (out / CODEC_FOLDER / CONFIG_FILE).exists():
        make_codec(str(corpus), config.codec, out / CODEC_FOLDER, seed=config.soundstorm.seed)
    if not (out / ACOUSTIC_FOLDER / CONFIG_FILE).exists():
        tokenizer, codec = SemanticTokenizer.from_pretrained(semantic), load_codec(out / CODEC_FOLDER)
        train_soundstorm(corpus, tokenizer, codec, config.soundstorm, out / ACOUSTIC_FOLDER, tokens_folder=tokens)


def report_on(
    checkpoint: Path, corpus: Path, config: EvaluationConfig, histories: Mapping[str, Path], out: Path
) -> None:
    """Evaluate a checkpoint on one corpus and write report.json and report.html into `out`; curves are shown beside."""
    curves = {stage: read_history(path) for stage, path in histories.items() if path.exists()}
    report = evaluate_checkpoint(checkpoint, corpus, config, histories=curves, title=corpus.name)
    shutil.rmtree(out, ignore_errors=True)
    write_report(report, out)


def report_files(out: Path, corpora: Mapping[str, EvaluationConfig]) -> dict[str, Path]:
    """Return where the report of each corpus lies."""
    return {name: out / "reports" / name / JSON_FILE for name in corpora}
