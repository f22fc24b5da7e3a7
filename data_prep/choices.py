"""What callers choose of a corpus, checked: splits and languages; and how its splits are called in records.

chosen_splits(["dev"], ("train", "dev", "test"), "FLEURS")     # ("dev",)
record_split("dev-other"), record_split("train-clean-100")     # "validation-other", "train"
chosen_language("French", ("ar", "fr"), "CVSS")                # "fr"
"""

from collections.abc import Collection, Sequence

from speechllm.errors import DataError
from speechllm.registry import suggest
from speechllm.tasks import language_code


def chosen_splits(given: Sequence[str] | None, known: Sequence[str], corpus: str) -> tuple[str, ...]:
    """Return the splits to read, by the corpus's own names; all that are known if None is given.

    Raises:
        DataError: there is no such split.
    """
    for name in given or ():
        if name not in known:
            raise DataError(f"{corpus} has no split {name!r}{suggest(name, known)} (known: {', '.join(known)})")
    return tuple(known if given is None else dict.fromkeys(given))


def chosen_language(given: str, known: Collection[str], corpus: str) -> str:
    """Return the ISO code of a language that the corpus has.

    Raises:
        TaskError: nobody knows the language.
        DataError: the corpus does not have it.
    """
    code = language_code(given)
    if code not in known:
        raise DataError(f"{corpus} has no {given!r} (known: {', '.join(sorted(known))})")
    return code


def record_split(name: str) -> str:
    """Return the split of records: parts for training are "train", "dev" is "validation", others keep their names."""
    if name.startswith("train"):
        return "train"
    return f"validation{name.removeprefix('dev')}" if name.startswith("dev") else name
