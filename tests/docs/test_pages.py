"""README and docs are true: their blocks run, their links lead somewhere, the site builds."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from speechllm.generation.acoustic import ACOUSTIC_STAGES
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.models.acoustic import ACOUSTIC_MODELS
from speechllm.tasks.task import TASKS
from speechllm.tokenizers.codec import CODECS
from tests.support.docs_world import every_example, make_world, run_command, run_page
from tests.support.pages import anchors, blocks, links

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, *sorted((ROOT / "recipes").rglob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.md"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("docs"))


@pytest.fixture
def world(template: Path, tmp_path: Path, hub: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh world for one page, with a Hub that is logged in, and where a random model's answers are short."""
    decode = LMDecoder.decode

    def decode_little(
        self: LMDecoder, prompts: Any, grammars: Any, config: DecodingConfig | None = None, *rest: Any
    ) -> Any:
        little = replace(config or DecodingConfig(), max_text_tokens=12, max_audio_seconds=2.0)
        return decode(self, prompts, grammars, little, *rest)

    monkeypatch.setattr(LMDecoder, "decode", decode_little)
    for registry in (TASKS, CODECS, ACOUSTIC_MODELS, ACOUSTIC_STAGES):  # what a page registers ends with it
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    folder = tmp_path / "world"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_every_block_runs(page: Path, world: Path, monkeypatch: pytest.MonkeyPatch):
    run_page(page, monkeypatch)


def test_every_command_has_an_example_that_runs(world: Path, monkeypatch: pytest.MonkeyPatch):
    """In the order of the help, each after those before it."""
    for name, example in every_example():
        assert example.startswith(f"speechllm {name}"), f"the help of {name} has no example"
        run_command(example, monkeypatch)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_somewhere(page: Path):
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        if target.endswith("cli.md"):
            continue  # made when the site is built
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{link} leads nowhere"
        assert there.is_relative_to(ROOT), f"{link} leads out of the project"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{link}: {there.name} has no such heading"
