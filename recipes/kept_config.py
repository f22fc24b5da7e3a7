"""The config beside what it made, so that another one is not taken for it.

    remember_config(config, "runs/semantic")        # writes runs/semantic/config.yaml

Recipes keep what is finished. With a changed config they would hand out what the old one made, in silence; here that is
an error which names the key. A folder that holds nothing yet takes any config.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechllm.config import config_to_dict, load_config, save_config
from speechllm.errors import ConfigError
from speechllm.training.loop import CHANGEABLE

CONFIG_FILE = "config.yaml"
FREE_KEYS = frozenset({*CHANGEABLE, "show_progress", "keep_checkpoints", "report_to", "num_workers", "out"})
"What may change between two calls, wherever it stands: it leaves what is made alone. A folder may have been moved."


def remember_config(config: Any, folder: str | Path) -> None:
    """Keep the config in a folder's config.yaml.

    Raises:
        ConfigError: the folder holds what another config made.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    if _holds_something(folder):
        require_same_config(config, path)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{CONFIG_FILE}.{os.getpid()}.partial")
    save_config(config, partial)
    os.replace(partial, path)


def require_same_config(config: Any, path: str | Path) -> None:
    """Refuse a config that is not the one in a file, if there is such a file.

    Raises:
        ConfigError: a key differs that has a say in what is made.
    """
    path = Path(path)
    if not path.exists():
        return
    before, now = (dict(_leaves(config_to_dict(c))) for c in (load_config(type(config), path), config))
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{path.parent} was made with {key} = {before.get(key)!r}, the config has {now.get(key)!r}; "
                "choose another out, restore the config, or delete the folder"
            )


def _holds_something(folder: Path) -> bool:
    files = (path for path in folder.rglob("*") if path.is_file())
    return any(path.name != CONFIG_FILE and not path.name.startswith(".") for path in files)


def _leaves(content: dict[str, Any], parents: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{parents}{key}.")
        elif key not in FREE_KEYS:
            yield f"{parents}{key}", value
