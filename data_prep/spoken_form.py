"""Text as it is said: lower case, numbers as words, no punctuation.

    spoken_form("Press 1, please!", "en")       # "press one please"
    spoken_form("L'homme a 2 chiens.", "fr")    # "l'homme a deux chiens"
    records = held_apart(in_spoken_form(records))   # labels so written, and no sentence of a test in training

A small model that learns to write what it hears should not have to guess what cannot be heard. What stands in
brackets is taken for a remark, "[sound of monkeys]".
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace

from speechllm.data.records import Record
from speechllm.errors import DataError, MissingDependencyError
from speechllm.tasks import language_code

LONGEST_NUMBER = 6
"Longer runs of digits are said digit by digit."
_REMARK = re.compile(r"\[[^\[\]]*\]|\([^()]*\)")
_NUMBER = re.compile(r"\d+")
_LOOSE_APOSTROPHE = re.compile(r"(?<!\S)'+|'+(?!\S)|''+")


def spoken_form(text: str, language: str) -> str:
    """Return what a speaker of `language` says for `text`; it may be empty.

    Runs of up to six digits are read as whole numbers ("1998" -> "one thousand nine hundred and ninety eight"): not how
    everybody says years. A spoken form is its own spoken form.

    Raises:
        DataError: the text has digits, and num2words does not know the language.
        MissingDependencyError: the text has digits, and num2words is not installed.
    """
    # U+2019 is how books and captions write the apostrophe.
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").lower()
    text = _REMARK.sub(" ", text)
    text = _NUMBER.sub(lambda match: f" {_words(match[0], language_code(language))} ", text)
    # By category and not by \w, which leaves out the vowel signs of many scripts.
    heard = "".join(" " if unicodedata.category(c)[0] in "PSC" and c != "'" else c for c in text)
    return " ".join(_LOOSE_APOSTROPHE.sub(" ", heard).split())


def in_spoken_form(records: Iterable[Record]) -> Iterator[Record]:
    """Yield records with all texts in spoken form; the audio stays."""
    for record in records:
        other = record.translation
        if other is not None:
            other = replace(other, text=spoken_form(other.text, other.language))
        yield replace(record, text=spoken_form(record.text, record.language), translation=other)


def held_apart(records: Iterable[Record]) -> Iterator[Record]:
    """Yield records without those of `train` that share a text, in either language, with a held-out record.

    Recorded prompts come under several names: split by name, "Goodbye." can stand on both sides. All records are held
    in memory.
    """
    records = list(records)
    held_out = {text for record in records if record.split != "train" for text in _texts(record)}
    yield from (record for record in records if record.split != "train" or not held_out & set(_texts(record)))


def _texts(record: Record) -> list[tuple[str, str]]:
    sides = [(record.language, record.text)]
    if record.translation is not None:
        sides.append((record.translation.language, record.translation.text))
    return [(language, text) for language, text in sides if text]


def _words(digits: str, language: str) -> str:
    try:
        from num2words import num2words
    except ImportError as error:
        raise MissingDependencyError("num2words", "quickstart", "numbers as words") from error
    numbers = [digits] if len(digits) <= LONGEST_NUMBER else list(digits)
    try:
        return " ".join(str(num2words(int(number), lang=language)) for number in numbers).lower()
    except NotImplementedError as error:
        raise DataError(f"num2words cannot say numbers in {language!r}; spell {digits!r} out in the text") from error
