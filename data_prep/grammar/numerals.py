"""Numbers as words, lower-case and without hyphens: spelled("fr")["22"] == "vingt deux"."""

import functools

from speechllm.errors import MissingDependencyError

HIGHEST = 99


def _words(number: int, language: str, kind: str = "cardinal") -> str:
    try:
        from num2words import num2words
    except ImportError as error:
        raise MissingDependencyError("num2words", "quickstart", "the sentence grammar") from error
    return " ".join(str(num2words(number, lang=language, to=kind)).lower().replace("-", " ").split())


@functools.cache
def spelled(language: str) -> dict[str, str]:
    """Return the numbers 0 to 99 as words, by their digits."""
    return {str(n): _words(n, language) for n in range(HIGHEST + 1)}


@functools.cache
def ordinals(language: str) -> dict[str, str]:
    """Return the days of the month as ordinals: ordinals("en")["3"] == "third"."""
    return {str(n): _words(n, language, "ordinal") for n in range(1, 32)}
