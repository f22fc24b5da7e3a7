"""Shapes and types in signatures are verified by every test."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.support.typecheck  # noqa: F401 - the hook below finds it by name, once it is loaded

install_import_hook("speechllm", "tests.support.typecheck.check")

# Machines are noisy: a slow example is no failure, and the same examples are drawn on every run.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Unpacked rows of tests end with them; processes that tests start have the same cache."""
    os.environ["SPEECHLLM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Hugging Face Hub on this machine (`tests.support.fake_hub.FakeHub`), logged in, with an empty cache."""
    from tests.support.fake_hub import connected_hub

    with connected_hub(tmp_path / "hub", monkeypatch) as started:
        yield started
