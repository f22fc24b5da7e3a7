"""Text as it is said: lower case, numbers as words, no punctuation.

    spoken_form("Press 1, please!", "en")       # "press one please"
    spoken_form("L'homme a 2 chiens.", "fr")    # "l'homme a deux chiens"

A small model that learns to write what it hears should not have to guess what cannot be heard.
"""

import re
import unicodedata

from speechllm.errors import DataError, MissingDependencyError
from speechllm.tasks import language_code

LONGEST_NUMBER = 6
"Longer runs of digits are said digit by digit."
_NUMBER = re.compile(r"\d+")
_UNHEARD = re.compile(r"[^\w' ]|_")
_LOOSE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")


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
    text = _NUMBER.sub(lambda match: f" {_words(match[0], language_code(language))} ", text)
    text = _LOOSE_APOSTROPHE.sub(" ", _UNHEARD.sub(" ", text))
    return " ".join(text.split())


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
