"""Pairs of sentences for a language model of speech: one that the grammar has, and one that it cannot have.

    pairs = word_pairs(100, avoid=training_texts, seed=0)
    pairs["nonword"][0]                                    # ("the bank is closed", "the bark is closed")
    for right, wrong in speak_pairs(pairs["nonword"], num_speakers=12, seed=0): ...      # Audio, Audio: one voice

    kind        wrong side                                                 as in the paper
    nonword     one word that the grammar does not have                      sWUGGY: words against nonwords
    wrong kind  one slot filled with what belongs in another                 sBLIMP: right against wrong syntax
    swapped     two neighbours in each other's place
    shuffled    all words in another order

The word that the grammar does not have begins like one of its words and goes on like another, from the first vowel on:
its sounds follow one another as in English, and it may be an English word that was never heard. (AudioLM,
arXiv:2209.03143, table IV; the tests are those of ZeroSpeech 2021, arXiv:2011.11588.)
"""

import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from data_prep.grammar import every_text, realise
from data_prep.grammar.frames import FRAMES, SLOTS
from data_prep.pico import training_speakers
from data_prep.pico_pool import speak_all
from speechllm.audio import Audio, load_audio

Pair: TypeAlias = tuple[str, str]
KINDS = ("nonword", "wrong kind", "swapped", "shuffled")
MIN_WORDS, MIN_LETTERS = 4, 4
"Of a sentence, so that there is an order to lose; of a word that is replaced."
MAX_DRAWS = 200


def word_pairs(count: int, *, avoid: Collection[str], seed: int) -> dict[str, list[Pair]]:
    """Return `count` pairs of each kind, (right, wrong); no right side is in `avoid` or comes twice."""
    rng, texts = random.Random(seed), every_text("en")
    words = sorted({word for text in texts for word in text.split()})
    known, possible = set(avoid), frozenset(texts)
    found: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
    for kind, pairs in found.items():
        for _ in range(MAX_DRAWS * count):
            if len(pairs) == count:
                break
            frame = rng.choice(list(FRAMES))
            values = {slot: rng.choice(SLOTS[_kind(slot)]) for slot in FRAMES[frame]}
            # Sums have a third word that follows from the others.
            right = "" if frame == "sum" else realise(frame, values, "en")
            if right in known or len(right.split()) < MIN_WORDS:
                continue
            wrong = _with_wrong_kind(frame, values, rng) if kind == "wrong kind" else _spoilt(right, kind, words, rng)
            if wrong not in possible:
                known.add(right)
                pairs.append((right, wrong))
    return found


def speak_pairs(pairs: Sequence[Pair], *, num_speakers: int, seed: int) -> Iterator[tuple[Audio, Audio]]:
    """Yield both sides of each pair as sound, in one training voice, which is drawn."""
    rng, speakers = random.Random(seed), training_speakers(num_speakers)
    requests = []
    for pair in pairs:
        speaker = rng.choice(speakers)
        requests += [speaker.request(text, "en") for text in pair]
    spoken = speak_all(requests, num_workers=1)
    for _ in pairs:
        right, wrong = load_audio(next(spoken)), load_audio(next(spoken))
        yield right, wrong


def _with_wrong_kind(frame: str, values: Mapping[str, str], rng: random.Random) -> str:
    slot = rng.choice(FRAMES[frame])
    kinds = [name for name in SLOTS if name != _kind(slot) and not set(SLOTS[name]) & set(SLOTS[_kind(slot)])]
    return realise(frame, {**values, slot: rng.choice(SLOTS[rng.choice(kinds)])}, "en")


def _spoilt(right: str, kind: str, words: Sequence[str], rng: random.Random) -> str:
    """Return the sentence with one strange word, or with its words in another order; itself where that fails."""
    parts = right.split()
    if kind == "shuffled":
        return " ".join(rng.sample(parts, len(parts)))
    if kind == "swapped":
        i = rng.randrange(len(parts) - 1)
        parts[i], parts[i + 1] = parts[i + 1], parts[i]
        return " ".join(parts)
    places = [i for i, word in enumerate(parts) if len(word) >= MIN_LETTERS]
    if not places:
        return right
    place = rng.choice(places)
    parts[place] = _nonword(parts[place], words, rng)
    return " ".join(parts)


def _nonword(word: str, words: Sequence[str], rng: random.Random) -> str:
    """Return a word of about the same length that is not among `words`; the word itself where there is none."""
    start = _onset(word)
    ends = [other[len(_onset(other)) :] for other in words if abs(len(other) - len(word)) <= 1]
    made = sorted({start + end for end in ends if abs(len(start + end) - len(word)) <= 1} - set(words))
    return rng.choice(made) if made else word


def _onset(word: str) -> str:
    """Return the letters before the first vowel."""
    return re.split("[aeiouy]", word, maxsplit=1)[0]


def _kind(slot: str) -> str:
    return slot.rstrip("0123456789")
