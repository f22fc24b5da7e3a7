"""Parallel sentences out of frames, the same in every language, and splits that share none of them.

    sentences(("en", "fr"), 3, seed=0)
    [Sentence("next_to", ("the bank is next to the park", "la banque est à côté du parc")), ...]

The result is a function of the arguments alone. No sentence of any language comes twice, so that a
translation is one to one in both directions.
"""

import functools
import importlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.grammar.frames import FRAMES, SLOTS
from speechllm.errors import DataError
from speechllm.registry import suggest
from speechllm.tasks import language_code

LANGUAGES = {"en": "english", "fr": "french", "de": "german", "es": "spanish", "it": "italian"}
_PLACEHOLDER = re.compile(r"\{(\w+)(?:\.(\w+))?(?::(\w+))?\}")


@dataclass(frozen=True)
class Sentence:
    """One meaning: the frame it comes from and its text in each language asked for, in that order."""

    frame: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """Sentences for training, validation and test: disjoint in every language."""

    train: list[Sentence]
    validation: list[Sentence]
    test: list[Sentence]


def sentences(languages: Sequence[str], num: int, seed: int = 0) -> list[Sentence]:
    """Return `num` different sentences in all `languages`, in random order.

    Frames with more room give more sentences (in proportion to the square root of their size), small ones all
    they have.

    Raises:
        DataError: a language has no grammar here, or the grammar has fewer sentences than that.
    """
    codes = [_grammar_code(language) for language in languages]
    rng = random.Random(seed)
    pools = {}
    for name in FRAMES:
        pools[name] = list(_realised(name, codes))
        rng.shuffle(pools[name])
    found: list[Sentence] = []
    seen: list[set[str]] = [set() for _ in codes]
    for name, quota in _quotas({name: len(pool) for name, pool in pools.items()}, num).items():
        for sentence in pools[name][:quota]:
            if any(text in texts for text, texts in zip(sentence.texts, seen, strict=True)):
                continue
            for text, texts in zip(sentence.texts, seen, strict=True):
                texts.add(text)
            found.append(sentence)
    if len(found) < num:
        raise DataError(
            f"the grammar has only {len(found):,} different sentences of the {num:,} asked for; ask for fewer"
        )
    rng.shuffle(found)
    return found[:num]


def every_text(language: str) -> list[str]:
    """Return all that the grammar can say in a language, each text once, in a fixed order."""
    codes = [_grammar_code(language)]
    return list(dict.fromkeys(sentence.texts[0] for name in FRAMES for sentence in _realised(name, codes)))


def split(items: Sequence[Sentence], num_validation: int, num_test: int) -> Splits:
    """Hold out sentences whose every word, in every language, is still in three training sentences.

    A small corpus has too few of those: then two, one or no training sentences are enough, whichever comes first.

    Raises:
        DataError: there are fewer sentences than are to be held out.
    """
    num_held_out = num_validation + num_test
    if len(items) < num_held_out:
        raise DataError(f"{num_held_out} sentences are to be held out, but there are only {len(items)}; ask for more")
    for min_occurrences in (3, 2, 1, 0):
        train, held_out = _hold_out(items, num_held_out, min_occurrences)
        if len(held_out) == num_held_out:
            break
    return Splits(train, held_out[:num_validation], held_out[num_validation:])


def realise(frame: str, values: Mapping[str, str], language: str) -> str:
    """Return the sentence of a frame with its slots filled, in one language."""
    grammar = _grammar(language)

    def fill(match: re.Match[str]) -> str:
        slot, form, agrees_with = match.groups()
        if agrees_with is not None:
            gender = _form(grammar, agrees_with, values[agrees_with], "gender")
            form = gender if form is None else f"{form}_{gender}"
        if slot not in values:
            return grammar.LEXICON[slot][form]
        return _form(grammar, slot, values[slot], form)

    return _PLACEHOLDER.sub(fill, grammar.TEMPLATES[frame])


def _hold_out(items: Sequence[Sentence], num: int, min_occurrences: int) -> tuple[list[Sentence], list[Sentence]]:
    words = [[set(text.split()) for text in item.texts] for item in items]
    # Words of different languages are counted apart: "restaurant" may be known in one and not in the other.
    counts = Counter((i, word) for sides in words for i, side in enumerate(sides) for word in side)
    train: list[Sentence] = []
    held_out: list[Sentence] = []
    for item, sides in zip(items, words, strict=True):
        keys = [(i, word) for i, side in enumerate(sides) for word in side]
        known = min_occurrences == 0 or all(counts[key] > min_occurrences for key in keys)
        if len(held_out) < num and known:
            held_out.append(item)
            counts.subtract(keys)
        else:
            train.append(item)
    return train, held_out


def _realised(frame: str, languages: Sequence[str]) -> Iterator[Sentence]:
    slots = FRAMES[frame]
    for chosen in itertools.product(*(SLOTS[_kind(slot)] for slot in slots)):
        values = dict(zip(slots, chosen, strict=True))
        if any(values[slot] == values.get(f"{slot}2") for slot in slots):
            continue
        if frame == "sum":
            values["total"] = str(int(values["addend"]) + int(values["addend2"]))
        yield Sentence(frame, tuple(realise(frame, values, language) for language in languages))


def _quotas(sizes: Mapping[str, int], num: int) -> dict[str, int]:
    """Share `num` among frames by the square root of their size, none above its size."""
    low, high = 0.0, float(num)
    for _ in range(60):
        middle = (low + high) / 2
        total = sum(min(size, int(middle * size**0.5)) for size in sizes.values())
        low, high = (middle, high) if total < num else (low, middle)
    # A little more than asked for: sentences that two frames share are dropped afterwards.
    return {name: min(size, int(high * size**0.5) + 1) for name, size in sizes.items()}


def _kind(slot: str) -> str:
    return "number" if slot == "total" else slot.rstrip("0123456789")


def _form(grammar: Any, slot: str, value: str, form: str | None) -> str:
    kind = _kind(slot)
    forms = grammar.LEXICON.get(kind, {}).get(value, value).split("|")
    names = grammar.FORMS.get(kind, ())
    return forms[names.index(form)] if form is not None else forms[0]


@functools.cache
def _grammar(language: str) -> Any:
    """Return the language's module, with the times of day added to its lexicon."""
    module = importlib.import_module(f"data_prep.grammar.{LANGUAGES[language]}")
    times = (value.split(":") for value in SLOTS["time"])
    module.LEXICON["time"] = {f"{hour}:{minute}": module.time_forms(int(hour), int(minute)) for hour, minute in times}
    return module


def _grammar_code(language: str) -> str:
    code = language_code(language)
    if code not in LANGUAGES:
        raise DataError(
            f"there is no grammar for {language!r}{suggest(code, LANGUAGES)}; there is one for {', '.join(LANGUAGES)}"
        )
    return code
