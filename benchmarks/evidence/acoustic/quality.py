"""The section of acoustic.md about what SoundStorm is used for: windows, streaming, infilling, conversion, dialogues.

    quality_section(results)        # tables out of the measurements of those names

Two ways of speaking the same codes stand side by side. Nothing of this is published, so that there is no direction to
hold: a difference is called clear in a seed if the 95 % interval of a paired bootstrap over the items excludes 0.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.evidence.acoustic.dialogues import BEFORE, BY_TURNS, ONE_PASS, UNMARKED
from benchmarks.evidence.acoustic.edits import CONVERTED, FIRST, INFILLED, PASTED, RESPOKEN, SECOND, WHOLE
from benchmarks.evidence.acoustic.plan import SPLITS
from benchmarks.evidence.acoustic.streaming import OFFLINE, STREAMED
from benchmarks.evidence.acoustic.summary import (
    CER,
    VOICE,
    WHERE,
    Claim,
    Measure,
    Results,
    judge,
    numbers,
    value,
)
from benchmarks.evidence.acoustic.voices import COPY, PROMPTED
from benchmarks.evidence.acoustic.windows import ALONE, WINDOWS
from benchmarks.evidence.acoustic.windows import ONE_PASS as WITHOUT_WINDOWS
from benchmarks.evidence.acoustic.world import Series
from benchmarks.measure import table
from speechllm.generation.streaming_speech import StreamConfig

ALL = "all"
"Both splits together."
JUMP = Measure(label="jump at the seams", unit="dB", digits=1)
CLICK = Measure(label="click at the seams", unit="dB", digits=1)
SEAMS = ((JUMP, "jump"), (CLICK, "click"))
SIDES = Measure(label="similarity of both sides of a seam", higher_is_better=True)
AROUND = Measure(label="similarity of the span to its surroundings", higher_is_better=True)
SHARE = Measure(
    label="turns that are nearer to their own speaker", unit="%", scale=100, digits=0, higher_is_better=True
)
MARGIN = Measure(label="similarity to the own speaker less that to the other", higher_is_better=True)
MARGIN_KEY = "margin"
SECONDS = Measure(label="CPU s", digits=2, has_items=False)
DIALOGUE_MEASURES = (
    (CER, "cer", "CER, %"),
    (VOICE, "own voice", "similarity to the own speaker"),
    (replace(VOICE, label="similarity to the other"), "other voice", "to the other speaker"),
    (MARGIN, MARGIN_KEY, "the difference"),
    (SHARE, "nearer", "turns nearer to their own speaker, %"),
    (SECONDS, "seconds", "CPU s for a dialogue"),
)


def quality_section(results: Results) -> str:
    """Return the section, without its heading; what no seed has measured is left out."""
    pooled = pool(results)
    parts = {
        "windows": _windows,
        "streaming": _streaming,
        "infilling": _infilling,
        "conversion": _conversion,
        "dialogues": _dialogues,
    }
    measured = {key.split("/")[0] for series in results.values() for key in series}
    return "\n\n".join(part(pooled) for name, part in parts.items() if name in measured)


def _windows(pooled: Results) -> str:
    key = f"windows/{ALL}/{PROMPTED}/{WINDOWS}/jump"
    counts = ", ".join(str(len(series[key])) for series in _with(pooled, key).values())
    copies = _numbers(pooled, f"windows/{ALL}/{PROMPTED}/{COPY}/jump", JUMP)
    return f"""### Windows

{compare(_window_claims(), pooled)}

Sentences of one speaker, half a minute, in windows of the model's own length and in one pass; {counts} seams in each
seed with a prompt. A jump is the difference of the spectra on both sides of a seam, a click how much louder high bands
are across it than beside it; the other side of a comparison is measured at the same places of the same speech, where it
has no seam. A codec's copy of the recording, other speech, jumps by {copies} dB there."""


def _streaming(pooled: Results) -> str:
    start = f"streaming/{ALL}"
    first = _numbers(pooled, f"{start}/{STREAMED}/first sound", SECONDS)
    last = _numbers(pooled, f"{start}/{OFFLINE}/whole", SECONDS)
    return f"""### Streaming

{compare(_stream_claims(), pooled)}

The first sound needs {StreamConfig().latency_seconds:.2f} s of codes and then, of computing, {first} CPU s; offline it
comes with the last, after {last} CPU s. A second of speech takes {_per_second(pooled, STREAMED)} CPU s streamed and
{_per_second(pooled, OFFLINE)} offline: what was said last is read again with every piece."""


def _infilling(pooled: Results) -> str:
    kept = _numbers(pooled, f"infilling/{INFILLED}/kept", replace(SHARE, digits=2))
    unchanged = _numbers(pooled, f"infilling/{FIRST}/cer", CER)
    return f"""### A span said anew

{compare(_infill_claims(), pooled)}

Of two sentences that differ in a word or a few, those words of the first are replaced by codes of the second's that
somebody else said, so that the own voice is known from the surroundings alone. Words end where the CTC encoder says
so, to within a code of 80 ms. "{PASTED}" has the words' own acoustic codes in the gap, from the second sentence in the
same voice: what joining two recordings costs. Of the acoustic codes outside the span {kept} % are those of the
recording, to the bit. Against the second sentence, the recording as it was has a CER of {unchanged} %."""


def _conversion(pooled: Results) -> str:
    return f"""### Voice conversion

{_conversion_table(pooled)}

"{RESPOKEN}" is the same codes behind the prompt of the one who said them."""


def _dialogues(pooled: Results) -> str:
    return f"""### Dialogues

{_dialogue_table(pooled)}

{compare(_dialogue_claims(), pooled)}

Four turns of two speakers, sentences that were not trained on, behind a prompt of each. "{ONE_PASS}" makes all turns
together, frames marked with their speaker; "{UNMARKED}" is the same model with both prompts in view but all marks
alike, so that nothing tells whose turn it is; "{BY_TURNS}" is the same model with each turn behind its own prompt,
"{BEFORE}" SoundStorm before it was trained further on dialogues. The comparisons are over both splits."""


def pool(results: Results) -> dict[int, dict[str, Series]]:
    """Return the results with both splits together, under `ALL`, and the margin of each turn of a dialogue."""
    found: dict[int, dict[str, Series]] = {}
    for seed, series in results.items():
        found[seed] = whole = dict(series)
        for key in series:
            if key.startswith("dialogues/") and key.endswith("/own voice"):
                start = key.removesuffix("own voice")
                whole[start + MARGIN_KEY] = _less(series[key], series[f"{start}other voice"])
        for key in list(whole):
            name, split, *rest = key.split("/")
            if split == SPLITS[0] and rest:
                parts = [whole["/".join((name, one, *rest))] for one in SPLITS]
                whole["/".join((name, ALL, *rest))] = [row for rows in parts for row in rows]
    return found


def _less(own: Series, other: Series) -> Series:
    return [None if a is None or b is None else (a[0] - b[0], 1.0) for a, b in zip(own, other, strict=True)]


def compare(claims: Sequence[Claim], results: Results) -> str:
    """Return the table of comparisons: numbers of each seed, the mean gain, and in how many seeds it is clear."""
    rows, num_seeds = [], 0
    for claim in claims:
        seeds, measure = _with(results, claim.better[1]), claim.measure
        num_seeds = max(num_seeds, len(seeds))
        what = ", ".join(part for part in (claim.where, measure.label, measure.unit) if part)
        if not all(_is_measured(claim, series) for series in seeds.values()):
            rows.append([what, "a seed has nothing that could be compared", "", "", ""])
            continue
        found = judge(claim, seeds)
        opposite = judge(replace(claim, better=claim.worse, worse=claim.better), seeds)
        clear = f"{found.num_clear} better, {opposite.num_clear} worse" if measure.has_items else ""
        rows.append(
            [
                what,
                f"{claim.better[0]}: {numbers(found.better, measure)}",
                f"{claim.worse[0]}: {numbers(found.worse, measure)}",
                f"{statistics.mean(found.gains):+.{measure.digits}f}",
                clear,
            ]
        )
    return table(["what", "this", "beside", "mean gain", f"clear in {num_seeds} seed{'s' * (num_seeds != 1)}"], rows)


def _is_measured(claim: Claim, series: Mapping[str, Series]) -> bool:
    """Return whether both sides have an item; a span at the edge of a recording, say, has no surroundings to hear."""
    return all(any(row is not None for row in series[key]) for _, key in (claim.better, claim.worse))


def _window_claims() -> list[Claim]:
    found = []
    for voice in (PROMPTED, ALONE):
        measures = [(CER, "cer"), (VOICE, "own voice"), (SIDES, "both sides"), *SEAMS]
        if voice == ALONE:
            measures.remove((VOICE, "own voice"))
        for measure, what in measures:
            key = f"windows/{ALL}/{voice}"
            found.append(_claim(measure, voice, key, WINDOWS, WITHOUT_WINDOWS, what))
    return found


def _stream_claims() -> list[Claim]:
    measures = ((CER, "cer"), (VOICE, "own voice"), *SEAMS)
    return [_claim(measure, "", f"streaming/{ALL}", STREAMED, OFFLINE, what) for measure, what in measures]


def _infill_claims() -> list[Claim]:
    measures = ((CER, "cer"), (AROUND, "surroundings"), *SEAMS)
    return [
        _claim(measure, "", "infilling", INFILLED, other, what)
        for other in (SECOND, PASTED, WHOLE)
        for measure, what in measures
    ]


def _dialogue_claims() -> list[Claim]:
    measures = [(measure, what) for measure, what, _ in DIALOGUE_MEASURES if what != "other voice"]
    return [
        _claim(measure, "", f"dialogues/{ALL}", ONE_PASS, other, what)
        for other in (BY_TURNS, UNMARKED)
        for measure, what in measures
    ]


def _claim(measure: Measure, where: str, key: str, ours: str, other: str, what: str) -> Claim:
    better, worse = ((system, f"{key}/{system}/{what}") for system in (ours, other))
    return Claim(finding="", measure=measure, where=where, better=better, worse=worse)


def _conversion_table(results: Results) -> str:
    measures = ((CER, "cer"), (VOICE, "source voice"), (VOICE, "target voice"))
    rows = [
        [where, system, *(_numbers(results, f"conversion/{split}/{system}/{what}", one) for one, what in measures)]
        for split, where in WHERE.items()
        for system in (COPY, RESPOKEN, CONVERTED)
    ]
    return table(["", "what is heard", "CER, %", "similarity to the source voice", "to the target voice"], rows)


def _dialogue_table(results: Results) -> str:
    rows = []
    for split, where in WHERE.items():
        for system in (COPY, ONE_PASS, BY_TURNS, BEFORE, UNMARKED):
            cells = [_numbers(results, f"dialogues/{split}/{system}/{what}", m) for m, what, _ in DIALOGUE_MEASURES]
            rows.append([where, system, *cells])
    return table(["", "what is heard", *(header for _, _, header in DIALOGUE_MEASURES)], rows)


def _numbers(results: Results, key: str, measure: Measure) -> str:
    return numbers([value(measure, series[key]) for series in _with(results, key).values()], measure)


def _with(results: Results, key: str) -> dict[int, Mapping[str, Series]]:
    """Return the seeds that measured this."""
    return {seed: series for seed, series in results.items() if key in series}


def _per_second(results: Results, system: str) -> str:
    keys = [f"streaming/{ALL}/{system}/{what}" for what in ("whole", "speech")]
    seeds = _with(results, keys[0]).values()
    sums = [[sum(row[0] for row in series[key] if row) for key in keys] for series in seeds]
    return ", ".join(f"{took / spoken:.2f}" for took, spoken in sums)
