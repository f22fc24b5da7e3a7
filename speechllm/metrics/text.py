"""WER, CER, BLEU and chrF over a corpus, with counts, signature and a bootstrap interval.

    WER.score(["good morning"], ["good evening"])                       # WER 50 %
    BLEU.score(references, hypotheses, normaliser=make_normaliser("spoken", "en"))
    WER.compare(references, system_a, system_b)                         # paired bootstrap
    bleu_for("zh"), error_rates_for("zh")                               # what fits a language

Values come from jiwer (WER, CER) and sacrebleu (BLEU, chrF): sums over the corpus, not means over
utterances. A hypothesis of None is a failure: counted, not scored. An empty hypothesis is an
answer, and scored. So is silence where there was speech: all words deleted.

BLEU needs words: sacrebleu's 13a where blanks part them, its zh for Chinese, single characters for Japanese, Korean
and others (its MeCab tokenisers need packages of their own). Where no blanks part words there is no WER, and CER
does not count blanks.

BLEU: Papineni 2002, Post 2018 (arXiv:1804.08771). chrF: Popovic 2015.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np

from speechllm.errors import DataError, MissingDependencyError
from speechllm.metrics.bootstrap import (
    DEFAULT_BOOTSTRAP,
    BootstrapConfig,
    PairedDifference,
    bootstrap_interval,
    paired_bootstrap,
)
from speechllm.metrics.normalise import Normaliser, make_normaliser
from speechllm.metrics.score import Score

NO_BLANKS = frozenset({"ja", "km", "lo", "my", "th", "yue", "zh"})
"Languages whose writing does not part words by blanks."
BLEU_TOKENIZERS = {"zh": "zh", "yue": "zh"} | dict.fromkeys(("ja", "km", "ko", "lo", "my", "th"), "char")
"sacrebleu's tokeniser by language, where 13a does not fit."

Pairs = Sequence[tuple[str, str]]
"(reference, hypothesis), both normalised."


@dataclass(frozen=True)
class TextMetric:
    """A corpus metric over pairs of texts."""

    name: str
    unit: str
    higher_is_better: bool
    corpus: Callable[[Pairs], float]
    "The library's own corpus value."
    statistics: Callable[[str, str], np.ndarray]
    "Numbers [D] of one pair, whose sums give the corpus value: for the bootstrap."
    from_sums: Callable[[np.ndarray], float]
    signature: Callable[[], str]
    default_normaliser: str

    def score(
        self,
        references: Sequence[str],
        hypotheses: Sequence[str | None],
        *,
        normaliser: Normaliser | None = None,
        bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    ) -> Score:
        """Score hypotheses against references.

        Raises:
            DataError: there are not as many hypotheses as references.
        """
        normaliser = normaliser or make_normaliser(self.default_normaliser)
        pairs, reason = _comparable(references, hypotheses, normaliser)
        value, interval = None, None
        if pairs:
            value = self.corpus(pairs)
            rows = np.stack([self.statistics(*pair) for pair in pairs])
            interval = bootstrap_interval(rows, self.from_sums, bootstrap)
        return Score(
            name=self.name,
            value=value,
            unit=self.unit,
            num_scored=len(pairs),
            num_failed=len(references) - len(pairs),
            signature=f"{self.signature()}|norm:{normaliser.id}{bootstrap.signature}",
            higher_is_better=self.higher_is_better,
            interval=interval,
            reason=reason if references else "there were no items",
        )

    def compare(
        self,
        references: Sequence[str],
        hypotheses_a: Sequence[str | None],
        hypotheses_b: Sequence[str | None],
        *,
        normaliser: Normaliser | None = None,
        bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
    ) -> PairedDifference:
        """Return how far A's value lies above B's on the items that both answered.

        Raises:
            DataError: lengths differ, or fewer than two items have both answers.
        """
        normaliser = normaliser or make_normaliser(self.default_normaliser)
        if not len(references) == len(hypotheses_a) == len(hypotheses_b):
            raise DataError(_lengths(len(references), min(len(hypotheses_a), len(hypotheses_b))))
        rows_a, rows_b = [], []
        for reference, a, b in zip(references, hypotheses_a, hypotheses_b, strict=True):
            if a is not None and b is not None and (wanted := normaliser(reference)):
                rows_a.append(self.statistics(wanted, normaliser(a)))
                rows_b.append(self.statistics(wanted, normaliser(b)))
        if len(rows_a) < 2:
            raise DataError(f"{len(rows_a)} items have two answers, expected at least 2 to compare systems")
        return paired_bootstrap(np.stack(rows_a), np.stack(rows_b), self.from_sums, bootstrap)


def asr_bleu(
    references: Sequence[str],
    transcripts: Sequence[str | None],
    *,
    language: str,
    asr: str,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> Score:
    """Return the BLEU of what a recogniser heard in generated speech; both sides normalised as spoken text.

    `asr` names the recogniser in the signature. The value is bounded by its errors: read it beside that of
    the original speech and of the codec copy, judged by the same recogniser. (CVSS, arXiv:2201.03713, section 5)
    """
    normaliser = make_normaliser("spoken", language)
    score = bleu_for(language).score(references, transcripts, normaliser=normaliser, bootstrap=bootstrap)
    return replace(score, name="ASR-BLEU", signature=f"{score.signature}|asr:{asr}")


def _comparable(
    references: Sequence[str], hypotheses: Sequence[str | None], normaliser: Normaliser
) -> tuple[list[tuple[str, str]], str]:
    """Return the pairs that can be scored, and a line about the others."""
    if len(references) != len(hypotheses):
        raise DataError(_lengths(len(references), len(hypotheses)))
    pairs, num_missing, num_empty = [], 0, 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        wanted = normaliser(reference)
        if hypothesis is None:
            num_missing += 1
        elif not wanted:
            num_empty += 1
        else:
            pairs.append((wanted, normaliser(hypothesis)))
    told = {"without an output": num_missing, "with an empty reference": num_empty}
    return pairs, ", ".join(f"{count} {what}" for what, count in told.items() if count)


def _lengths(num_references: int, num_hypotheses: int) -> str:
    return (
        f"{num_references} references but {num_hypotheses} hypotheses; "
        "give one for each, None where a system gave no output"
    )


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(name, "eval", "scoring") from error


Unit = Literal["words", "characters", "characters without blanks"]


def _error_rate(pairs: Pairs, unit: Unit) -> float:
    jiwer = _library("jiwer")
    rate = jiwer.wer if unit == "words" else jiwer.cer
    return 100 * float(rate(*([_counted(pair[side], unit) for pair in pairs] for side in (0, 1))))


def _counted(text: str, unit: Unit) -> str:
    return "".join(text.split()) if unit == "characters without blanks" else text


def _edit_statistics(reference: str, hypothesis: str, unit: Unit) -> np.ndarray:
    """Return [errors, length of the reference] in words or characters."""
    jiwer = _library("jiwer")
    reference, hypothesis = _counted(reference, unit), _counted(hypothesis, unit)
    out = (jiwer.process_words if unit == "words" else jiwer.process_characters)(reference, hypothesis)
    errors = out.substitutions + out.deletions + out.insertions
    return np.array([errors, out.substitutions + out.deletions + out.hits], dtype=np.float64)


def _edit_rate(sums: np.ndarray) -> float:
    return 100 * float(sums[0] / sums[1])


@functools.cache
def _chrf() -> Any:
    return _library("sacrebleu.metrics").CHRF()


@functools.cache
def _sacrebleu_bleu(tokenizer: str) -> Any:
    # corpora are normalised already, and sacrebleu's warning about tokenised periods is not for them
    return _library("sacrebleu.metrics").BLEU(force=True, tokenize=tokenizer)


def _corpus_score(pairs: Pairs, scorer: Callable[[], Any]) -> float:
    return float(scorer().corpus_score([h for _, h in pairs], [[r for r, _ in pairs]]).score)


def _bleu_statistics(reference: str, hypothesis: str, tokenizer: str) -> np.ndarray:
    """Return [4 matches, 4 totals, hypothesis length, reference length]."""
    score = _sentence_bleu(tokenizer).sentence_score(hypothesis, [reference])
    return np.array([*score.counts, *score.totals, score.sys_len, score.ref_len], dtype=np.float64)


@functools.cache
def _sentence_bleu(tokenizer: str) -> Any:
    return _library("sacrebleu.metrics").BLEU(effective_order=True, tokenize=tokenizer)


def _bleu_from_sums(sums: np.ndarray) -> float:
    counts, totals = sums[:4].astype(int).tolist(), sums[4:8].astype(int).tolist()
    score = _sacrebleu_bleu("13a").compute_bleu(counts, totals, int(sums[8]), int(sums[9]), smooth_method="exp")
    return float(score.score)


CHRF_ORDER, CHRF_BETA = 6, 2
"chrF2 with character n-grams up to 6: sacrebleu's defaults."


def _chrf_statistics(reference: str, hypothesis: str) -> np.ndarray:
    """Return matches, hypothesis totals and reference totals [3 * order] of character n-grams without blanks."""
    texts = ["".join(text.split()) for text in (hypothesis, reference)]
    matches, totals = [], []
    for order in range(1, CHRF_ORDER + 1):
        grams = [_ngrams(text, order) for text in texts]
        matches.append(sum(min(count, grams[1].get(gram, 0)) for gram, count in grams[0].items()))
        totals.append([sum(gram.values()) for gram in grams])
    # like sacrebleu, an order that the reference does not have counts for neither side
    of_hypothesis = [h if r else 0 for h, r in totals]
    return np.array([*matches, *of_hypothesis, *(r for _, r in totals)], dtype=np.float64)


def _ngrams(text: str, order: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for i in range(len(text) - order + 1):
        counts[text[i : i + order]] = counts.get(text[i : i + order], 0) + 1
    return counts


def _chrf_from_sums(sums: np.ndarray) -> float:
    matches, hypothesis, reference = sums.reshape(3, CHRF_ORDER)
    orders = (hypothesis > 0) & (reference > 0)
    if not orders.any():
        return 0.0
    precision = float((matches[orders] / hypothesis[orders]).mean())
    recall = float((matches[orders] / reference[orders]).mean())
    if precision + recall == 0:
        return 0.0
    return 100 * (1 + CHRF_BETA**2) * precision * recall / (CHRF_BETA**2 * precision + recall)


def _error_metric(name: str, unit: Unit, level: str) -> TextMetric:
    return TextMetric(
        name, "%", False,
        functools.partial(_error_rate, unit=unit),
        functools.partial(_edit_statistics, unit=unit),
        _edit_rate,
        lambda: f"jiwer:{_version('jiwer')}|level:{level}|corpus",
        "basic",
    )  # fmt: skip


WER = _error_metric("WER", "words", "word")
CER = _error_metric("CER", "characters", "character, blanks count")
CER_WITHOUT_BLANKS = _error_metric("CER", "characters without blanks", "character, blanks dropped")
CHRF = TextMetric(
    "chrF", "", True,
    functools.partial(_corpus_score, scorer=_chrf),
    _chrf_statistics,
    _chrf_from_sums,
    lambda: f"chrF2|{_signature(_chrf())}",
    "none",
)  # fmt: skip


@functools.cache
def _bleu(tokenizer: str) -> TextMetric:
    scorer = functools.partial(_sacrebleu_bleu, tokenizer)
    return TextMetric(
        "BLEU", "", True,
        functools.partial(_corpus_score, scorer=scorer),
        functools.partial(_bleu_statistics, tokenizer=tokenizer),
        _bleu_from_sums,
        lambda: f"BLEU|{_signature(scorer())}",
        "none",
    )  # fmt: skip


BLEU = _bleu("13a")


def bleu_for(language: str) -> TextMetric:
    """Return BLEU with the tokeniser that fits a language (an ISO code)."""
    return _bleu(BLEU_TOKENIZERS.get(language, "13a"))


def error_rates_for(language: str) -> tuple[TextMetric, ...]:
    """Return the error rates that fit a language (an ISO code), the most telling of a transcript first."""
    return (CER_WITHOUT_BLANKS,) if language in NO_BLANKS else (WER, CER)


def _version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def _signature(scorer: Any) -> str:
    # a fixed signature: sacrebleu itself knows the number of references only after a first corpus
    scorer.corpus_score(["a"], [["a"]])
    return str(scorer.get_signature())
