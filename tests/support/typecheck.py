"""The checker that tests put around every function: beartype, which does not know `Self` on a lone method."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

from beartype import beartype

F = TypeVar("F", bound=Callable[..., Any])


def check(function: F) -> F:
    """Return `function` with its annotations verified on every call, `Self` excepted."""
    hints = getattr(function, "__annotations__", None)
    if hints:
        function.__annotations__ = {name: Any if hint is Self else hint for name, hint in hints.items()}
    return beartype(function)
