"""Where a training's log goes: TensorBoard unless something else is asked for.

trackers(None)                   # ["tensorboard"] where it is installed: <out>.training/runs
trackers(["wandb", "trackio"])   # these, or an error that says what to install
trackers([])                     # nothing
"""

import importlib.util
from collections.abc import Sequence

from speechllm.errors import ConfigError, MissingDependencyError
from speechllm.registry import suggest

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
"Package of each tracker."
EXTRAS = {"tensorboard": "train"}


def trackers(names: Sequence[str] | None) -> list[str]:
    """Return the trackers of a config, each of them installed.

    Raises:
        ConfigError: a name is not known.
        MissingDependencyError: its package is not installed.
    """
    if names is None:
        return ["tensorboard"] if _is_installed("tensorboard") else []
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(f"report_to: no tracker {name!r}{suggest(name, PACKAGES)} (known: {', '.join(PACKAGES)})")
        if not _is_installed(PACKAGES[name]):
            raise MissingDependencyError(PACKAGES[name], EXTRAS.get(name, "trackers"), f"report_to: [{name}]")
    return list(names)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
