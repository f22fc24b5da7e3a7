"""From measurements to claims: what is compared, by how much it differs in every seed, and whether the direction holds.

    results = load(folders, seeds)                                  # {seed: {"voices/test/AudioLM/cer": [...], ...}}
    findings = [judge(claim, results) for claim in claims(budget)]
    show(findings)                                                  # the tables of acoustic.md

A direction holds if every seed points the way of the paper. Beside it stands in how many seeds the 95 % interval of a
paired bootstrap over items excludes 0.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from benchmarks.evidence.acoustic.iterations import AT_ONCE
from benchmarks.evidence.acoustic.plan import SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.tokens import ACOUSTIC, ACROSS, AGAINST, COARSE, SEMANTIC, WITHIN
from benchmarks.evidence.acoustic.voices import COPY, PROMPTED
from benchmarks.evidence.acoustic.world import Series
from benchmarks.evidence.verdict import gains, holds, verdict
from benchmarks.measure import table
from speechllm.metrics.bootstrap import paired_bootstrap

MEASUREMENTS = (
    "voices", "long", "iterations", "tokens", "likelihoods", "continuations", "phones", "speed",
    "windows", "streaming", "infilling", "conversion", "dialogues",
)  # fmt: skip
OF_SOME_SEEDS = ("windows", "streaming", "infilling", "conversion", "dialogues")
"What a report may lack of a seed; it then has fewer numbers."
TIMED = ("speed", "streaming", "dialogues")
"Measured alone, as they take times."
MODELS = ("AudioLM", "SoundStorm")
WHERE = {"test": "known speakers", "test_speakers": "unseen speakers"}
Results: TypeAlias = Mapping[int, Mapping[str, Series]]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a series is read as."""

    label: str
    unit: str = ""
    digits: int = 2
    scale: float = 1.0
    higher_is_better: bool = False
    has_items: bool = True
    "False: the rows are no sample of items, so that there is no bootstrap."


CER = Measure(label="CER", unit="%", digits=1, scale=100.0)
VOICE = Measure(label="similarity to the own voice", higher_is_better=True)
ABX = Measure(label="ABX", unit="%", digits=1)
MEL = Measure(label="log-mel distance to the original", unit="dB")
ITERATION_MEASURES = (
    (CER, "cer"),
    (Measure(label="log-mel distance to the codec copy", unit="dB"), "log-mel distance"),
    (VOICE, "own voice"),
)
STEPS = ((1, 16), (16, 32))
"Of the number of iterations, whose gains are compared."
SECONDS = Measure(label="CPU s for a second of speech", digits=3, has_items=False)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`better` should beat `worse`; each is (label, key of its series)."""

    finding: str
    measure: Measure
    where: str = ""
    better: tuple[str, str]
    worse: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim with its numbers, one for each seed."""

    claim: Claim
    better: tuple[float, ...]
    worse: tuple[float, ...]
    num_clear: int

    @property
    def gains(self) -> tuple[float, ...]:
        """How much better in each seed: positive is the paper's direction, whatever is better."""
        return gains(self.better, self.worse, higher_is_better=self.claim.measure.higher_is_better)

    @property
    def holds(self) -> bool:
        """True if every seed points the way of the claim."""
        return holds(self.gains)

    @property
    def verdict(self) -> str:
        """In words."""
        return verdict(self.gains, self.num_clear if self.claim.measure.has_items else None)


KEPT = "acoustic generation keeps the content"
LOST = "and loses the speaker"
BACK = "a prompt of 3 s brings the voice back"
FASTER = "SoundStorm is faster than coarse and fine stages"
CLOSER = "and closer to its prompt"
CLEARER = "and no harder to understand"
STEADIER = "and drifts less in half a minute"
ITERATIONS = "16 iterations of the first level are better than 1"
ENOUGH = "and more than 16 add little"
MEANING = "semantic tokens tell words apart"
SOUND = "acoustic tokens keep the sound"

PUBLISHED = {
    KEPT: "AudioLM table II: CER 3.4, codec copy 0.9, original 0.8",
    LOST: "AudioLM table III: speaker classification 3.2 %, codec copy 100 %, chance 0.34 %",
    BACK: "AudioLM table III: 92.6 % with a prompt of 3 s",
    FASTER: "SoundStorm section 4: two orders of magnitude on a TPU",
    CLOSER: "SoundStorm section 4, main table: .57 to .59 against .46 to .48",
    CLEARER: "SoundStorm section 4, main table: CER 1.10, .81, 1.24 against 1.50, 1.47, 1.54",
    STEADIER: "SoundStorm section 4: consistency of short, mid and long speech .96 .94 .91 against .96 .91 .86",
    ITERATIONS: "SoundStorm section 4, figure 4: quality rises by .1 to .2 up to 16 iterations",
    ENOUGH: "SoundStorm section 4, figure 4: no gain beyond 16",
    MEANING: "AudioLM table I: ABX within and across 6.7 and 7.6, SoundStream 17.8 and 26.6 (6000 bps)",
    SOUND: "AudioLM table I: ViSQOL 1.1 from semantic tokens, 3.3 and 3.9 from SoundStream",
}
"Direction and numbers of AudioLM, arXiv:2209.03143, and of SoundStorm, arXiv:2305.09636."


def claims() -> list[Claim]:
    """Return what is compared."""
    return [*_voice_claims(), *_model_claims(), *_iteration_claims(), *_token_claims()]


def _voice_claims() -> list[Claim]:
    found = []
    for model in MODELS:
        for split, where in WHERE.items():
            alone, prompted, copy = (f"voices/{split}/{name}" for name in (model, f"{model} {PROMPTED}", COPY))
            own, other = (f"{alone}/{what}" for what in ("cer", "cer, other text"))
            found += [
                Claim(
                    finding=KEPT, measure=CER, where=where,
                    better=(f"{model}, no prompt", own), worse=("its CER against another sentence", other),
                ),
                Claim(
                    finding=LOST, measure=VOICE, where=where,
                    better=(COPY, f"{copy}/own voice"), worse=(f"{model}, no prompt", f"{alone}/own voice"),
                ),
                Claim(
                    finding=BACK, measure=VOICE, where=where,
                    better=(f"{model}, prompt", f"{prompted}/own voice"),
                    worse=(f"{model}, no prompt", f"{alone}/own voice"),
                ),
            ]  # fmt: skip
    return sorted(found, key=lambda claim: (KEPT, LOST, BACK).index(claim.finding))


def _model_claims() -> list[Claim]:
    def versus(finding: str, measure: Measure, key: str, where: str = "", label: str = "") -> Claim:
        theirs, ours = (key.format(model=model) for model in MODELS)
        return Claim(
            finding=finding, measure=measure, where=where, better=(f"SoundStorm{label}", ours),
            worse=(f"AudioLM{label}", theirs),
        )  # fmt: skip

    found = [versus(FASTER, SECONDS, "speed/{model}/seconds")]
    for finding, measure, what in ((CLOSER, VOICE, "own voice"), (CLEARER, CER, "cer")):
        for split, where in WHERE.items():
            found.append(versus(finding, measure, f"voices/{split}/{{model}} {PROMPTED}/{what}", where, ", prompt"))
    drift = Measure(label="similarity, last third minus first", higher_is_better=True)
    for split, where in WHERE.items():
        found.append(versus(STEADIER, drift, f"long/{split}/{{model}}/drift", where))
    return found


def _iteration_claims() -> list[Claim]:
    found = []
    for measure, what in ITERATION_MEASURES:
        sides = [(f"{n} iteration{'s' * (n > 1)}", f"iterations/{n}/{what}") for n in (16, 1)]
        found.append(Claim(finding=ITERATIONS, measure=measure, better=sides[0], worse=sides[1]))
    for measure, what in ITERATION_MEASURES:
        gain = replace(measure, label=f"gain in {measure.label}", higher_is_better=True)
        sides = [(f"from {a} to {b}", f"iterations/{a} to {b}/{what}") for a, b in STEPS]
        found.append(Claim(finding=ENOUGH, measure=gain, better=sides[0], worse=sides[1]))
    return found


def _token_claims() -> list[Claim]:
    found = []
    places = {WITHIN: "within speaker", ACROSS: "across speakers", AGAINST: "B in the voice of X"}
    for place, where in places.items():
        for acoustic in (ACOUSTIC, COARSE):
            key = f"tokens/abx {place}"
            found.append(
                Claim(
                    finding=MEANING, measure=ABX, where=where,
                    better=(SEMANTIC, f"{key}/{SEMANTIC}"), worse=(acoustic, f"{key}/{acoustic}"),
                )
            )  # fmt: skip
    for measure, key in ((MEL, "tokens/log-mel distance"), (CER, "tokens/cer")):
        sides = ((ACOUSTIC, f"{key}/{ACOUSTIC}"), (SEMANTIC, f"{key}/{SEMANTIC}"))
        found.append(Claim(finding=SOUND, measure=measure, better=sides[0], worse=sides[1]))
    return found


def load(folders: Folders, seeds: Sequence[int]) -> dict[int, dict[str, Series]]:
    """Read all measurements, the drift of each long item worked out."""
    found: dict[int, dict[str, Series]] = {}
    for seed in seeds:
        found[seed] = {}
        for name in MEASUREMENTS:
            if name in OF_SOME_SEEDS and not folders.result(name, seed).exists():
                continue
            saved = json.loads(folders.result(name, seed).read_text(encoding="utf-8"))["series"]
            found[seed] |= {f"{name}/{key}": rows for key, rows in saved.items()}
        for split in SPLITS:
            for system in (COPY, *MODELS):
                found[seed][f"long/{split}/{system}/drift"] = _drift(found[seed], f"long/{split}/{system}")
        for measure, what in ITERATION_MEASURES:
            for few, many in STEPS:
                sides = [found[seed][f"iterations/{n}/{what}"] for n in (few, many)]
                found[seed][f"iterations/{few} to {many}/{what}"] = _gains(sides[0], sides[1], measure)
    return found


def _drift(series: Mapping[str, Series], start: str) -> Series:
    """Return for each item the mean similarity of its last third of segments minus that of its first third."""
    segments = drift_curve(series, start)
    third = max(1, len(segments) // 3)
    return [
        None if np.isnan(gap) else (float(gap), 1.0) for gap in segments[-third:].mean(0) - segments[:third].mean(0)
    ]


def _gains(few: Series, many: Series, measure: Measure) -> Series:
    """Return for each item how much better `many` is."""
    sign = 1 if measure.higher_is_better else -1
    return [None if a is None or b is None else (sign * (b[0] - a[0]), a[1]) for a, b in zip(few, many, strict=True)]


def drift_curve(series: Mapping[str, Series], start: str) -> np.ndarray:
    """Return similarities [segments, items]; NaN where there is nothing to hear."""
    keys = sorted((key for key in series if key.startswith(f"{start}/") and key.split("/")[-1].isdigit()), key=_last)
    return np.array([[np.nan if row is None else row[0] for row in series[key]] for key in keys])


def _last(key: str) -> int:
    return int(key.rsplit("/", 1)[1])


def value(measure: Measure, series: Series) -> float:
    """Return sum of parts over sum of wholes; for timed rounds, the median of the rounds."""
    rows = np.array([row for row in series if row is not None])
    if not len(rows):
        return float("nan")
    if not measure.has_items:
        return float(np.median(rows[:, 0] / rows[:, 1]))
    return float(measure.scale * rows[:, 0].sum() / rows[:, 1].sum())


def judge(claim: Claim, results: Results) -> Finding:
    """Score both sides of a claim in every seed."""
    measure, better, worse, num_clear = claim.measure, [], [], 0
    for series in results.values():
        ours, theirs = series[claim.better[1]], series[claim.worse[1]]
        better.append(value(measure, ours))
        worse.append(value(measure, theirs))
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
        if measure.has_items and len(pairs) > 1:
            rows = np.array(pairs, dtype=np.float64)
            low, high = paired_bootstrap(rows[:, 0], rows[:, 1], _quotient).interval
            num_clear += low > 0 if measure.higher_is_better else high < 0
    return Finding(claim=claim, better=tuple(better), worse=tuple(worse), num_clear=num_clear)


def _quotient(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1])


HEADER = ["finding", "measure", "better side, each seed", "other side, each seed", "mean gain", "verdict"]


def show(findings: Sequence[Finding]) -> str:
    """Return the table of claims."""
    rows = []
    for finding in findings:
        claim, measure = finding.claim, finding.claim.measure
        what = ", ".join(part for part in (measure.label, claim.where, measure.unit) if part)
        rows.append(
            [
                claim.finding,
                what,
                f"{claim.better[0]}: {numbers(finding.better, measure)}",
                f"{claim.worse[0]}: {numbers(finding.worse, measure)}",
                f"{statistics.mean(finding.gains):+.{measure.digits}f}",
                finding.verdict,
            ]
        )
    return table(HEADER, rows)


def numbers(values: Sequence[float], measure: Measure) -> str:
    """Return a value for each seed."""
    return ", ".join(f"{one:.{measure.digits}f}" for one in values)


def overview(findings: Sequence[Finding], published_findings: Mapping[str, str]) -> str:
    """Return for each finding what was published and in how many of its comparisons the direction holds."""
    rows = []
    for name, published in published_findings.items():
        own = [finding for finding in findings if finding.claim.finding == name]
        seeds = sum(gain > 0 for finding in own for gain in finding.gains)
        total = sum(len(finding.gains) for finding in own)
        rows.append([name, published, f"{sum(finding.holds for finding in own)} of {len(own)}", f"{seeds} of {total}"])
    return table(["finding", "published", "comparisons that hold in all seeds", "seeds over all comparisons"], rows)


def systems_table(results: Results, split: str) -> str:
    """Return every version of a split's items with all that is measured of it."""
    first = next(iter(results.values()))
    names = dict.fromkeys(key.split("/")[2] for key in first if key.startswith(f"voices/{split}/"))
    rows = []
    for name in names:
        row = [name]
        for measure, what in ((CER, "cer"), (CER, "cer, other text"), (VOICE, "own voice"), (VOICE, "other voice")):
            key = f"voices/{split}/{name}/{what}"
            values = [value(measure, series[key]) for series in results.values() if key in series]
            row.append(numbers(values, measure) if values else "")
        rows.append(row)
    header = [
        "what is heard",
        "CER, %",
        "CER against another sentence, %",
        "similarity to the own voice",
        "to another's",
    ]
    return table(header, rows)


def iterations_table(results: Results, budget: Budget) -> str:
    """Return what each number of iterations gives."""
    mel = Measure(label="")
    seconds = Measure(label="", digits=3)
    measures = ((CER, "cer"), (mel, "log-mel distance"), (VOICE, "own voice"), (seconds, "seconds"))
    rows = []
    for name in (*map(str, budget.iterations), AT_ONCE):
        row = [name]
        for measure, what in measures:
            values = [value(measure, series[f"iterations/{name}/{what}"]) for series in results.values()]
            row.append(numbers(values, measure))
        rows.append(row)
    return table(
        [
            "iterations",
            "CER, %",
            "log-mel distance to the codec copy, dB",
            "similarity",
            "CPU s for a second of speech",
        ],
        rows,
    )
