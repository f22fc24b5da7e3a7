"""The site builds without a warning, and every page is in its menu."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_in_the_menu(site: Path):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    menu = (site / "index.html").read_text(encoding="utf-8")
    for page in pages:
        assert (site / page).exists()
        assert f'href="{page}"' in menu, f"{page} is missing in the menu of mkdocs.yml"


def test_commands_and_names_have_their_reference(site: Path):
    commands = (site / "cli.html").read_text(encoding="utf-8")
    assert "speechllm transcribe recording.wav" in commands
    assert "--candidates" in commands
    system = (site / "reference" / "system.html").read_text(encoding="utf-8")
    assert 'id="speechllm.pipelines.system.SpeechSystem.run"' in system
