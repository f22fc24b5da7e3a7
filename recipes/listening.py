"""Does a model listen? Its word error rate on held-out speech, between a floor and a ceiling.

    test = ListeningTest(name="recorded-en", corpus="corpora/recorded", tokens="tokens/recorded", language="en")
    result = measure_listening("runs/recorded_small/checkpoint", [test], ListeningConfig(whisper="whisper-base"))[0]
    result.shuffled, result.real, result.ceiling        # three WERs: deaf, this model, Whisper

A language model can write fluent text of the right kind without having heard anything. So each hypothesis is scored a
second time against the text of another utterance: "WER with shuffled audio", what the prior alone is worth. Only the
difference, paired over the utterances, shows that a model listens. The ceiling is the recogniser whose encoder made
the tokens, on the recordings themselves; Moonshine, which made none, is a second one for English.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from speechllm.data.prepare import read_corpus
from speechllm.data.records import Record, Split
from speechllm.data.tokenize import TokenRow, read_tokens
from speechllm.errors import DataError
from speechllm.evaluation.judges import Judge, MoonshineJudge, WhisperJudge
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoded import DecodeReport
from speechllm.hub import Checkpoint
from speechllm.metrics import CER, WER, Score, make_normaliser
from speechllm.metrics.bootstrap import PairedDifference
from speechllm.training.gauges import decode_rows, first_texts, shuffled


@dataclass(frozen=True, kw_only=True)
class ListeningTest:
    """Held-out speech of one language in one corpus."""

    name: str
    "How it is called in the results."
    corpus: str
    "Folder that `prepare` wrote."
    tokens: str
    "Folder of its token shards."
    language: str
    "Code of the language that is scored; records of others are left out."
    split: Split = "test"
    "Which split."
    ceiling: bool = True
    "Whether the ceilings are measured, given a recogniser of the language."


@dataclass(frozen=True, kw_only=True)
class ListeningConfig:
    """How much is measured."""

    num_items: int = 60
    "Utterances of each test, drawn by the seed; fewer if there are not so many."
    whisper: str | None = None
    "Whisper checkpoint (folder or Hub id) for the ceiling; None: no ceiling."
    moonshine: bool = False
    "Whether Moonshine hears the English recordings, too: a ceiling by a recogniser that made no tokens."
    max_text_tokens: int = 96
    "Longest hypothesis, in text ids."
    seed: int = 0
    "Of the draw."


@dataclass(frozen=True, kw_only=True)
class ListeningResult:
    """One test: where the model stands between floor and ceiling."""

    name: str
    real: Score
    "WER."
    characters: Score
    "CER of the same hypotheses."
    shuffled: Score
    "WER of each hypothesis against the text of another utterance: the floor."
    gain: PairedDifference
    "Real minus shuffled WER, paired: below 0, interval included, means that the model listens."
    ceiling: Score | None
    "WER of Whisper on the recordings; None if it was not asked for."
    second_ceiling: Score | None
    "The same of Moonshine."
    label_source: str
    "Who wrote the references: human, synthetic, pseudo."
    num_in_training: int
    "References that also stand in training data of the same language: 0, or the test is no test."
    decoding: DecodeReport
    "How the hypotheses ended."
    samples: tuple[tuple[str, str], ...]
    "(reference, hypothesis) of the first ten."

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready form."""
        return asdict(self)


def measure_listening(
    checkpoint: Checkpoint, tests: Sequence[ListeningTest], config: ListeningConfig, trained_on: Sequence[str] = ()
) -> list[ListeningResult]:
    """Run every test, on tokens as stored in the shards; `trained_on` are the token folders of all training corpora.

    Raises:
        DataError: a test has fewer than two utterances, or other tokens than the checkpoint's.
    """
    whisper = WhisperJudge(config.whisper) if config.whisper is not None else None
    judges = (whisper, MoonshineJudge() if config.moonshine else None)
    trained = {(row.language, row.text) for folder in trained_on for row in read_tokens(folder, "train")}
    return [_measure(checkpoint, test, config, judges, trained) for test in tests]


def _measure(
    checkpoint: Checkpoint,
    test: ListeningTest,
    config: ListeningConfig,
    judges: tuple[Judge | None, Judge | None],
    trained: set[tuple[str, str]],
) -> ListeningResult:
    tokenizer = checkpoint.processor.semantic_tokenizer
    fingerprint = tokenizer.fingerprint if tokenizer is not None else None
    rows = _draw(list(read_tokens(test.tokens, test.split, expected_fingerprint=fingerprint)), test, config)
    decoder = LMDecoder(checkpoint.model, checkpoint.processor)
    decoded = decode_rows(decoder, rows, test.language, max_text_tokens=config.max_text_tokens)
    hypotheses, references = first_texts(decoded), [row.text for row in rows]
    others = shuffled(hypotheses)
    norm = make_normaliser("spoken", test.language)
    ceiling, second = (_ceiling(test, rows, judge) for judge in judges)
    return ListeningResult(
        name=test.name,
        real=WER.score(references, hypotheses, normaliser=norm),
        characters=CER.score(references, hypotheses, normaliser=norm),
        shuffled=WER.score(references, others, normaliser=norm),
        gain=WER.compare(references, hypotheses, others, normaliser=norm),
        ceiling=ceiling,
        second_ceiling=second,
        label_source=", ".join(sorted({row.label_source for row in rows})),
        num_in_training=sum((test.language, text) in trained for text in references),
        decoding=DecodeReport.of(decoded),
        samples=tuple(zip(references, hypotheses, strict=True))[:10],
    )


def _draw(rows: list[TokenRow], test: ListeningTest, config: ListeningConfig) -> list[TokenRow]:
    usable = [row for row in rows if row.language == test.language and row.text and row.codes is not None]
    if len(usable) < 2:
        raise DataError(
            f"{test.tokens} has {len(usable)} utterances of {test.language!r} with text in {test.split!r}, "
            "expected at least 2; check language and split"
        )
    return random.Random(config.seed).sample(usable, min(config.num_items, len(usable)))


def _ceiling(test: ListeningTest, rows: Sequence[TokenRow], judge: Judge | None) -> Score | None:
    if judge is None or not test.ceiling or not judge.speaks(test.language):
        return None
    wanted = {row.id for row in rows}
    records: dict[str, Record] = {r.id: r for r in read_corpus(test.corpus, test.split) if r.id in wanted}
    audios = [audio for row in rows if (audio := records[row.id].audio) is not None]
    texts = judge.transcribe(audios, test.language)
    return WER.score([row.text for row in rows], texts, normaliser=make_normaliser("spoken", test.language))
