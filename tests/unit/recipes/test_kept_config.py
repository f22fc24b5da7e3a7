"""A folder belongs to the config that filled it."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recipes.kept_config import CONFIG_FILE, remember_config
from speechllm.config import load_config
from speechllm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    steps: int = 3
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Outer:
    out: str = "a"
    names: list[str] = field(default_factory=lambda: ["x"])
    loop: Inner = field(default_factory=Inner)


def test_a_folder_that_holds_something_refuses_another_config_and_names_the_key(tmp_path: Path):
    remember_config(Outer(), tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights").write_text("")
    remember_config(Outer(), tmp_path)
    with pytest.raises(ConfigError, match=r"loop\.steps = 3, the config has 4"):
        remember_config(Outer(loop=Inner(steps=4)), tmp_path)
    with pytest.raises(ConfigError, match=r"names = \['x'\], the config has \[\]"):
        remember_config(Outer(names=[]), tmp_path)
    assert load_config(Outer, tmp_path / CONFIG_FILE) == Outer()


def test_what_is_only_shown_or_moved_may_change(tmp_path: Path):
    remember_config(Outer(), tmp_path)
    (tmp_path / "weights").write_text("")
    remember_config(Outer(out="b", loop=Inner(progress=False)), tmp_path)


def test_a_folder_with_nothing_in_it_takes_any_config(tmp_path: Path):
    remember_config(Outer(), tmp_path / "new")
    (tmp_path / "new" / "steps").mkdir()
    remember_config(Outer(names=["y"]), tmp_path / "new")
    assert load_config(Outer, tmp_path / "new" / CONFIG_FILE).names == ["y"]
