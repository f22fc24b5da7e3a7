from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from speechllm import __version__
from speechllm.config import build_config, config_to_dict, load_config, save_config
from speechllm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Part:
    tasks: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Train:
    out: Path
    steps: int = 10
    optimizer: Optimizer = Optimizer()
    mixture: tuple[Part, ...] = ()


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_file_and_overrides_build_the_dataclass(write):
    path = write("out: runs/a\noptimizer: {kind: muon, learning_rate: 1e-4}\nmixture: [{tasks: ASR}]\n")
    config = load_config(Train, path, ["steps=3", "optimizer.learning_rate=0.5"])
    assert config == Train(
        out=Path("runs/a"), steps=3, optimizer=Optimizer(kind="muon", learning_rate=0.5), mixture=(Part(tasks="ASR"),)
    )


def test_exponents_without_a_dot_are_numbers(write):
    assert load_config(Train, write("out: a\noptimizer: {learning_rate: 1e-4}")).optimizer.learning_rate == 1e-4


@dataclass(frozen=True, kw_only=True)
class Stage:
    train: Train = Train(out=Path("stage"), steps=7, optimizer=Optimizer(kind="muon", learning_rate=0.25))
    others: dict[str, Train] | None = None


def test_a_section_keeps_what_its_field_says_of_the_keys_that_are_not_given(write):
    stage = load_config(Stage, write("train: {optimizer: {learning_rate: 0.5}}"), ["train.steps=8"])
    assert stage.train == Train(out=Path("stage"), steps=8, optimizer=Optimizer(kind="muon", learning_rate=0.5))
    # Sections in a mapping have no field of their own: they start from their class.
    assert load_config(Stage, write("others: {a: {out: b}}")).others == {"a": Train(out=Path("b"))}


def test_saved_config_reads_back_equal(tmp_path):
    config = Train(out=Path("x"), mixture=(Part(tasks="ASR AST", weight=2.5),))
    save_config(config, tmp_path / "c.yaml")
    assert load_config(Train, tmp_path / "c.yaml") == config
    assert build_config(Train, config_to_dict(config)) == config


def test_a_config_of_a_later_release_is_refused(write):
    assert load_config(Train, write(f"speechllm_version: {__version__}\nout: a")) == Train(out=Path("a"))
    assert load_config(Train, write("speechllm_version: 0.0.9\nout: a")) == Train(out=Path("a"))
    # Before its unknown keys are complained of.
    with pytest.raises(ConfigError, match=r"was written for speechllm 7\.1\.0, this is .*; upgrade"):
        load_config(Train, write("speechllm_version: 7.1.0\nout: a\nwarp: 9"))
    with pytest.raises(ConfigError, match="speechllm_version = 'x', expected a release such as"):
        load_config(Train, write("speechllm_version: x\nout: a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: a\nstepz: 3", r"unknown key 'stepz'; did you mean 'steps'\? \(known: out, steps, optimizer, mixture\)"),
        ("out: a\noptimizer: {learning_rat: 3}", r"'optimizer.learning_rat'; did you mean 'learning_rate'\?"),
        ("out: a\nmixture: [{tasks: ASR, wieght: 3}]", r"'mixture.0.wieght'; did you mean 'weight'\?"),
        ("steps: 3", "required key 'out' is missing"),
        ("out: a\nsteps: many", "steps = 'many': input should be a valid integer"),
        ("out: a\noptimizer: {kind: adam}", "optimizer.kind = 'adam': input should be 'adamw' or 'muon'"),
        ("out: a\nsteps: 1\nsteps: 2", r"key 'steps' stands twice \(line 3\)"),
        ("- 1\n- 2", "holds list, expected a mapping"),
        ("out: [", "is not valid YAML"),
        ("out: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_mistakes_get_one_clear_line(write, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(Train, write(text))
    assert "\n" not in str(caught.value)


def test_missing_file_and_malformed_override(tmp_path, write):
    with pytest.raises(ConfigError, match="cannot read config"):
        load_config(Train, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"not of the form key\.subkey=value"):
        load_config(Train, write("out: a"), ["steps"])
    with pytest.raises(ConfigError, match="'out' is not a section"):
        load_config(Train, write("out: a"), ["out.x=1"])


def test_an_override_that_is_no_yaml_is_named(write):
    with pytest.raises(ConfigError, match=r"override 'out=\[1': the value is not valid YAML") as caught:
        load_config(Train, write("out: a"), ["out=[1"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["out: a", "out: a\noptimizer: null", "out: a\noptimizer:"])
def test_an_empty_section_takes_overrides(write, text):
    assert load_config(Train, write(text), ["optimizer.kind=muon"]).optimizer == Optimizer(kind="muon")


def test_a_misspelt_key_is_named_before_the_one_that_it_leaves_missing():
    @dataclass(frozen=True, kw_only=True)
    class Needs:
        corpus: str
        out: str

    with pytest.raises(ConfigError, match="unknown key 'corpsu'; did you mean 'corpus'"):
        build_config(Needs, {"corpsu": "a"})
