"""What is claimed of AudioLM's first stage, of what it continues, and of letters in tokens; and the tables of it.

language_claims()                          # for `summary.judge`, like all the others
likelihoods_table(results)                 # kinds of pairs by scorers
continuations_table(results, "test")       # systems by measures
"""

from benchmarks.evidence.acoustic.continuations import (
    KNOWN,
    NEW,
    NOTHING,
    OTHER,
    OURS,
    OWN,
    RANDOM,
    SECONDS,
    WAY,
)
from benchmarks.evidence.acoustic.likelihoods import CHANCE, FREQUENCIES, MEAN, SCORERS, SUM
from benchmarks.evidence.acoustic.phones import KNOWN_SPEAKERS, UNSEEN_SPEAKERS
from benchmarks.evidence.acoustic.summary import ABX, VOICE, WHERE, Claim, Measure, Results, numbers, value
from benchmarks.evidence.acoustic.tokens import ACOUSTIC, ACROSS, COARSE, KINDS, SEMANTIC, WITHIN
from benchmarks.evidence.acoustic.word_pairs import KINDS as PAIRS
from benchmarks.measure import table

RIGHT = Measure(label="right one of a pair is likelier", unit="%", digits=1, scale=100.0, higher_is_better=True)
WORDS = Measure(label="words that the grammar has", unit="%", digits=1, scale=100.0, higher_is_better=True)
FROM_GRAMMAR = Measure(label="way to the grammar", unit="%", digits=1, scale=100.0)
NEW_RUNS = Measure(label="new runs of three words", unit="%", digits=1, scale=100.0, higher_is_better=True)
LENGTH = Measure(label="s", digits=1)

LEARNT = "AudioLM's first stage knows words and sentences"
SENSIBLE = "AudioLM goes on in words of the language"
FAITHFUL = "and in the voice of its prompt"
LETTERS = "semantic tokens tell letters in context apart"
LANGUAGE_PUBLISHED = {
    LEARNT: "AudioLM table IV: sWUGGY 71.5 (83.7 in vocabulary), sBLIMP 64.7; chance 50",
    SENSIBLE: "AudioLM: without semantic tokens speech is babble (no figure)",
    FAITHFUL: "AudioLM table III: the prompt's speaker is recognised in 92.6 % of continuations",
    LETTERS: "AudioLM table I: ABX within and across 6.7 and 7.6; SoundStream 17.8 and 26.6 (2000 bps 22.4 and 28.7)",
}
"Of AudioLM, arXiv:2209.03143."


def language_claims() -> list[Claim]:
    """Return what is compared."""
    return [*_likelihood_claims(), *_continuation_claims(), *_letter_claims()]


def _likelihood_claims() -> list[Claim]:
    found = []
    for kind in PAIRS:
        for scorer, other in ((SUM, CHANCE), (MEAN, FREQUENCIES)):
            found.append(
                Claim(
                    finding=LEARNT, measure=RIGHT, where=kind,
                    better=(f"log probability, {scorer}", f"likelihoods/{kind}/{scorer}"),
                    worse=(other, f"likelihoods/{kind}/{other}"),
                )
            )  # fmt: skip
    return found


def _continuation_claims() -> list[Claim]:
    found = []
    for measure, what in ((WORDS, KNOWN), (FROM_GRAMMAR, WAY)):
        for place, where in (*WHERE.items(), (NOTHING, "from nothing")):
            better, worse = ((name, f"continuations/{place}/{name}/{what}") for name in (OURS, RANDOM))
            found.append(Claim(finding=SENSIBLE, measure=measure, where=where, better=better, worse=worse))
    for split, where in WHERE.items():
        own, other = (f"continuations/{split}/{OURS}/{what}" for what in (OWN, OTHER))
        sides = (("continuation and prompt", own), ("continuation and another's prompt", other))
        found.append(Claim(finding=FAITHFUL, measure=VOICE, where=where, better=sides[0], worse=sides[1]))
    return found


def _letter_claims() -> list[Claim]:
    found = []
    for group in (KNOWN_SPEAKERS, UNSEEN_SPEAKERS):
        for place in (WITHIN, ACROSS):
            for acoustic in (ACOUSTIC, COARSE):
                key = f"phones/{place}, {group}"
                found.append(
                    Claim(
                        finding=LETTERS, measure=ABX, where=f"letters, {place}, {group}",
                        better=(SEMANTIC, f"{key}/{SEMANTIC}"), worse=(acoustic, f"{key}/{acoustic}"),
                    )
                )  # fmt: skip
    return found


def likelihoods_table(results: Results) -> str:
    """Return how often each scorer finds the right one of each kind of pair."""
    rows = []
    for kind in PAIRS:
        cells = [_cell(results, RIGHT, f"likelihoods/{kind}/{scorer}") for scorer in SCORERS]
        rows.append([kind, *cells])
    return table(["the wrong one has", *(f"{scorer}, %" for scorer in SCORERS)], rows)


def continuations_table(results: Results, place: str) -> str:
    """Return what is heard of each system, behind prompts of a split or from nothing."""
    start = f"continuations/{place}/"
    names = dict.fromkeys(key.split("/")[2] for key in next(iter(results.values())) if key.startswith(start))
    measures = [(WORDS, KNOWN, "words that the grammar has, %"), (FROM_GRAMMAR, WAY, "way to the grammar, %")]
    if place == NOTHING:
        measures += [(NEW_RUNS, NEW, "new runs of three words, %")]
    else:
        measures += [(VOICE, OWN, "similarity to the prompt"), (VOICE, OTHER, "to another's prompt")]
    measures += [(LENGTH, SECONDS, "s")]
    rows = [
        [name, *(_cell(results, measure, f"{start}{name}/{what}") for measure, what, _ in measures)] for name in names
    ]
    return table(["what is heard", *(label for _, _, label in measures)], rows)


def letters_table(results: Results) -> str:
    """Return the ABX error of each kind of token."""
    places = [f"{place}, {group}" for group in (KNOWN_SPEAKERS, UNSEEN_SPEAKERS) for place in (WITHIN, ACROSS)]
    rows = [[kind, *(_cell(results, ABX, f"phones/{place}/{kind}") for place in places)] for kind in KINDS]
    return table(["tokens", *places], rows)


def _cell(results: Results, measure: Measure, key: str) -> str:
    return numbers([value(measure, series[key]) for series in results.values()], measure)
