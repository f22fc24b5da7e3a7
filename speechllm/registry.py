"""Names that stand for classes or functions, looked up lazily, with a suggestion on a typo.

codecs = Registry[type]("codec", {"mel-rvq": "speechllm.tokenizers.mel_rvq:MelRVQCodec"})
codecs["mel-rvq"]        # imports the module on first use
codecs["mel-rqv"]        # RegistryError: unknown codec 'mel-rqv'; did you mean 'mel-rvq'? ...
"""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar, cast

from speechllm.errors import RegistryError

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class Registry(Generic[T]):
    """A table from names to objects; a string value "module:attribute" is imported when asked for."""

    def __init__(self, kind: str, entries: Mapping[str, T | str] | None = None):
        self.kind = kind
        self._entries: dict[str, T | str] = dict(entries or {})

    def register(self, name: str, target: T | str) -> None:
        """Add `name`. Registering the same target again is harmless, another one is an error."""
        if name in self._entries and self._entries[name] != target:
            raise RegistryError(
                f"{self.kind} {name!r} is already registered as {self._entries[name]!r}; "
                f"choose another name for {target!r}"
            )
        self._entries[name] = target

    def __getitem__(self, name: str) -> T:
        """Return the object registered under `name`."""
        if name not in self._entries:
            raise RegistryError(
                f"unknown {self.kind} {name!r}{suggest(name, self._entries)} "
                f"(known: {', '.join(sorted(self._entries)) or 'none'})"
            )
        target = self._entries[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = self._entries[name] = cast(T, getattr(importlib.import_module(module), attribute))
        return target

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
