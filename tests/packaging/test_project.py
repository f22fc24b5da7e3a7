"""The promises of the project as a whole: size of files, import time, entry points, recipes, README."""

import importlib.metadata
import inspect
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from speechllm.cli import build
from speechllm.config import build_config, config_to_dict, load_config
from tests.support.recipe_configs import RECIPE_CONFIGS, RECIPE_FILES, config_class

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("speechllm", "recipes", "data_prep", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
MAX_LINES = 500


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_has_one_subject_of_bounded_length(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    if path.parts[len(ROOT.parts)] != "tests":
        assert text.lstrip().startswith('"""'), "a file starts with a docstring that says what it is"


def test_import_is_fast_and_leaves_torch_alone():
    code = (
        "import sys, time; start = time.perf_counter(); import speechllm; took = time.perf_counter() - start; "
        "print(took, any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    times = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took, heavy = run.stdout.split()
        assert heavy == "False"
        times.append(float(took))
    assert min(times) < 0.5


def test_command_line_starts_fast_without_torch():
    code = "import sys; import speechllm.cli; print('torch' in sys.modules)"
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert time.perf_counter() - start < 10


def _entry_points():
    return [
        point
        for group in ("speechllm.corpora", "speechllm.recipes")
        for point in importlib.metadata.entry_points(group=group)
        if point.dist is not None and point.dist.name == "speechllm"
    ]


def test_entry_points_are_installed_as_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    names = {(group, name) for group, table in declared.items() for name in table}
    assert {(point.group, point.name) for point in _entry_points()} == names


@pytest.mark.parametrize("point", _entry_points(), ids=lambda point: f"{point.group}:{point.name}")
def test_entry_point_is_a_function(point):
    assert callable(point.load())


@pytest.mark.parametrize("point", [p for p in _entry_points() if p.group.endswith("recipes")], ids=lambda p: p.name)
def test_every_recipe_is_called_with_a_config_and_overrides(point):
    assert list(inspect.signature(point.load()).parameters)[:2] == ["config_path", "overrides"]


@pytest.mark.parametrize("path", RECIPE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_configs_fit_their_recipe(path):
    config = load_config(config_class(path), path)
    assert build_config(type(config), config_to_dict(config)) == config


def test_the_example_of_train_fits_its_recipe():
    found = re.search(r"Example: speechllm train (\S+) recipes/(\S+)/(\S+) (.+)", build.train.__doc__ or "")
    assert found is not None
    recipe, folder, file, overrides = found.groups()
    assert recipe == RECIPE_CONFIGS[folder][0]
    path = ROOT / "recipes" / folder / file
    load_config(config_class(path), path, overrides.split())


def test_readme_commands_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z]+)", text, flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"quickstart", "test"} <= targets
    assert all(f"\n{target}:" in makefile for target in targets)
    commands = set(re.findall(r"^speechllm ([a-z]+)", text, flags=re.MULTILINE))
    assert commands
    for command in sorted(commands):
        run = subprocess.run(
            [sys.executable, "-m", "speechllm.cli", command, "--help"], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        assert "Example:" in run.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.md")), ids=lambda p: p.parent.name)
def test_recipes_are_installed_from_the_clone_with_extras_that_exist(path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in re.findall(r"^pip install .*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        found = re.fullmatch(r"pip install -e '\.\[([a-z0-9,]+)\]'", line)
        assert found is not None, f"{line}: the configs lie in the clone"
        assert set(found[1].split(",")) <= set(extras)
