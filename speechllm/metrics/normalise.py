"""Text normalisers: what is made equal before two texts are compared. Each has an id that goes into signatures.

basic = make_normaliser("basic", "en")           # lower case, no punctuation
basic("The 2nd train, at 9:21!")                 # "the 2nd train at 9 21"
spoken = make_normaliser("spoken", "en")         # basic, and digits as words
spoken("The 2nd train, at 9:21!")                # "the second train at nine twenty one"
spoken.id                                        # "spoken.v1.en"

Judges write "21" where the reference says "twenty one", so scores of speech use `spoken`. Only what num2words
can say is changed: "2021" becomes "two thousand and twenty one" and never "twenty twenty one".
"""

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from speechllm.errors import ConfigError, MissingDependencyError
from speechllm.registry import suggest

NormaliserName: TypeAlias = Literal["none", "basic", "spoken", "whisper"]


@dataclass(frozen=True)
class Normaliser:
    """A function from text to text with the id that says which."""

    id: str
    function: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Return the normalised text."""
        return self.function(text)


@functools.cache
def make_normaliser(name: str, language: str = "en") -> Normaliser:
    """Return a normaliser by name.

    none     collapses whitespace, nothing else
    basic    NFKC, lower case, punctuation and symbols become blanks; accents stay
    spoken   basic, with numbers in digits spelt out in the language (num2words)
    whisper  Whisper's: the English one (without its table of British spellings) for en, else the basic one

    Raises:
        ConfigError: the name is unknown.
    """
    match name:
        case "none":
            return Normaliser("none", _collapse)
        case "basic":
            return Normaliser("basic.v1", basic)
        case "spoken":
            speakable = _num2words_speaks(language)
            identifier = f"spoken.v1.{language}" if speakable else f"spoken.v1.{language}-digits-kept"
            spell = functools.partial(_spell_numbers, language=language) if speakable else _collapse
            return Normaliser(identifier, lambda text: basic(spell(text)))
        case "whisper":
            return _whisper(language)
    known = NormaliserName.__args__
    raise ConfigError(f"unknown normaliser {name!r}{suggest(name, known)} (known: {', '.join(known)})")


def basic(text: str) -> str:
    """Return lower-case NFKC text in which punctuation and symbols have become single blanks."""
    text = unicodedata.normalize("NFKC", text).lower()
    return _collapse("".join(" " if unicodedata.category(c)[0] in "PSC" else c for c in text))


def _collapse(text: str) -> str:
    return " ".join(text.split())


_NUMBER = re.compile(r"\d+")
_THOUSANDS = re.compile(r"(?<=\d)[, \u00a0\u202f](?=\d{3}(?!\d))")
_FULL_HOUR = re.compile(r"\b(\d{1,2}):00\b")
_MAX_DIGITS = 12
"More digits than this are no number that anybody says; they stay."
_ORDINALS = {
    "en": re.compile(r"\b(\d+)(?:st|nd|rd|th)\b", re.IGNORECASE),
    "fr": re.compile(r"\b(\d+)(?:ers?|res?|ère|e|ème|eme)\b", re.IGNORECASE),
    "es": re.compile(r"\b(\d+)(?:\.?[ºª])"),
    "it": re.compile(r"\b(\d+)(?:\.?[ºª°])"),
    "de": re.compile(r"\b(\d+)\.(?=\s+\w)"),
}


def _spell_numbers(text: str, language: str) -> str:
    text = _THOUSANDS.sub("", _FULL_HOUR.sub(r"\1", text))
    if language in _ORDINALS:
        text = _ORDINALS[language].sub(lambda m: _say(m[1], language, "ordinal"), text)
    return _NUMBER.sub(lambda m: f" {_say(m[0], language, 'cardinal')} ", text)


def _say(digits: str, language: str, kind: Literal["cardinal", "ordinal"]) -> str:
    import num2words

    if len(digits) > _MAX_DIGITS:
        return digits
    try:
        return str(num2words.num2words(int(digits), lang=language, to=kind))
    except (NotImplementedError, OverflowError):
        return digits


def _num2words_speaks(language: str) -> bool:
    try:
        import num2words
    except ImportError as error:
        raise MissingDependencyError("num2words", "eval", "spelling numbers out") from error
    return language in num2words.CONVERTER_CLASSES


def _whisper(language: str) -> Normaliser:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    english, other = EnglishTextNormalizer({}), BasicTextNormalizer()
    if language == "en":
        return Normaliser("whisper-english.no-spelling-table", lambda text: _collapse(english(text)))
    return Normaliser("whisper-basic", lambda text: _collapse(other(text)))
