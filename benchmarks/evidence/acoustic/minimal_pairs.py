"""Minimal pairs of the grammar: two sentences of a frame that differ in one slot, each spoken by two voices.

    pairs = minimal_pairs(150, avoid=training_texts, seed=0)        # ("the bank is closed on monday", "... on friday")
    spoken = speak_pairs(pairs, seed=0)                             # SpokenPair: each sentence in three takes

The corpus has no alignment of phones to time, so that the unit of ABX is the sentence; what tells A from B is one slot
of it, a word or a few, and of the values of that slot the one whose spelling is closest.

    take       voice                               used as
    first      a training speaker                  A and B
    again      the same pitch and accent, slower   X within the speaker
    other      another training speaker            X across speakers
"""

import difflib
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from data_prep.grammar import realise
from data_prep.grammar.frames import FRAMES, SLOTS
from data_prep.pico import training_speakers
from data_prep.pico_pool import speak_all
from speechllm.audio import Audio, load_audio

SLOWER = 0.92
"Factor on the speed of the second take: Pico says the same text with the same settings in the same samples."
MAX_DRAWS = 100


@dataclass(frozen=True, eq=False)
class SpokenPair:
    """Both sentences, in three takes each."""

    texts: tuple[str, str]
    first: tuple[Audio, Audio]
    again: tuple[Audio, Audio]
    other: tuple[Audio, Audio]


def minimal_pairs(count: int, *, avoid: Collection[str], seed: int) -> list[tuple[str, str]]:
    """Return English sentences in pairs that differ in one slot, none of them in `avoid`, none twice."""
    rng, known, found = random.Random(seed), set(avoid), []
    for _ in range(MAX_DRAWS * count):
        if len(found) == count:
            break
        # Sums have a third word that follows from the others: two would change.
        frame = rng.choice([name for name in FRAMES if name != "sum"])
        values = {slot: rng.choice(SLOTS[slot.rstrip("0123456789")]) for slot in FRAMES[frame]}
        slot, first = rng.choice(FRAMES[frame]), realise(frame, values, "en")
        changed = [realise(frame, {**values, slot: value}, "en") for value in SLOTS[slot.rstrip("0123456789")]]
        others = [text for text in changed if text not in known and text != first]
        if others and first not in known:
            second = max(others, key=lambda text: _alike(first, text))
            known |= {first, second}
            found.append((first, second))
    return found


def _alike(first: str, second: str) -> float:
    """Return how much of the spelling of two sentences is the same, from 0 to 1."""
    return difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()


def speak_pairs(pairs: Sequence[tuple[str, str]], *, num_speakers: int, seed: int) -> Iterator[SpokenPair]:
    """Yield the pairs as sound; the speakers are drawn."""
    rng, speakers = random.Random(seed), training_speakers(num_speakers)
    requests = []
    for pair in pairs:
        one, other = rng.sample(speakers, 2)
        takes = (one, replace(one, speed=SLOWER * one.speed), other)
        requests += [speaker.request(text, "en") for speaker in takes for text in pair]
    spoken = speak_all(requests, num_workers=1)
    for pair in pairs:
        a, b, c, d, e, f = (load_audio(next(spoken)) for _ in range(6))
        yield SpokenPair(pair, (a, b), (c, d), (e, f))
