"""Going on with a run only under the settings that it began with.

require_same_settings(checkpoint, saved, {"seed": 1}, changeable=("log_every",))    # seed = 0, ... has 1
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from speechllm.errors import CheckpointError


def require_same_settings(
    checkpoint: str | Path, then: Mapping[str, Any], now: Mapping[str, Any], *, changeable: Collection[str] = ()
) -> None:
    """Compare plain settings (nested ones too) with those of a checkpoint, but for the `changeable` keys.

    Raises:
        CheckpointError: one differs; the message names the first, by its path.
    """
    found = _difference(then, now, changeable)
    if found is not None:
        key, before, after = found
        raise CheckpointError(
            f"{checkpoint} was trained with {key} = {before!r}, the config has {after!r}; "
            "train into another folder, or restore the config to go on"
        )


def _difference(then: Any, now: Any, changeable: Collection[str]) -> tuple[str, Any, Any] | None:
    """Return (key, before, after) of the first setting that differs."""
    keys: Collection[Any] = ()
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = [key for key in now if key not in changeable]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        keys = range(len(now))
    elif then != now:
        return "", then, now
    for key in keys:
        before = then.get(key) if isinstance(then, Mapping) else then[key]
        found = _difference(before, now[key], changeable)
        if found is not None:
            inner, *values = found
            return f"{key}.{inner}".rstrip("."), *values
    return None
