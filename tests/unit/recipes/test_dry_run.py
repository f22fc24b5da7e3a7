"""Every shipped config of the LM runs: its tasks, ways of training and keys as they are, all else at toy size.

What is exchanged: the LM for a tiny one with random weights, corpora for one of a few utterances in every language that
is named, tokenizer and sound for tiny ones, and how long and how much at once.
"""

import functools
import json
import re
import shlex

import pytest
import yaml

from recipes import recorded_steps, sweep, train_semantic, train_unified
from recipes.recorded_steps import RecordedConfig
from recipes.sweep import SweepConfig, merged
from recipes.train_semantic import SemanticTrainConfig
from speechllm.audio import encode_flac
from speechllm.cli.build import find_plugin, parse_options
from speechllm.config import build_config, load_config
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.data.tokenize import tokenize_corpus
from speechllm.hub import load_checkpoint
from speechllm.tokenizers.semantic import SemanticTokenizer
from speechllm.training.checks import check_training
from speechllm.training.unified import UnifiedTrainConfig
from tests.support.docs_world import parse
from tests.support.recipe_configs import RECIPE_FILES, RECIPES, config_class
from tests.support.tiny import (
    tiny_acoustic,
    tiny_checkpoint,
    tiny_semantic_tokenizer,
    tiny_speech,
    tiny_text_tokenizer,
)
from tests.support.tiny_whisper import tiny_whisper

SHORT = {
    "max_steps": 1, "max_tokens": 160, "rows_per_batch": 1, "gradient_accumulation": 1, "warmup_steps": 0,
    "bf16": False, "cpu": True, "log_every": 1, "save_every": None, "report_to": None, "show_progress": False,
}  # fmt: skip


def files_for(kind):
    return [path for path in RECIPE_FILES if config_class(path) is kind]


def name_of(path):
    return str(path.relative_to(RECIPES))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    sound = encode_flac(tiny_speech(0.4))
    named = {language for path in RECIPE_FILES for language in languages_of(path)} - {"en"} | {"fr"}
    records = [
        Record(id=f"{language}-{split}", split=split, language=language, text="un deux", audio=sound,
               translation=Translation("en", "one two", sound))
        for split in ("train", "validation", "test") for language in sorted(named)
    ]  # fmt: skip
    prepare_corpus(records, folder / "corpus")
    tokenizer = tiny_semantic_tokenizer()
    tokenizer.save_pretrained(folder / "semantic")
    tokenize_corpus(folder / "corpus", tokenizer, folder / "tokens")
    tiny_text_tokenizer().save_pretrained(folder / "text")
    codec, storm = tiny_acoustic()
    codec.save_pretrained(folder / "sound" / "codec")
    storm.save_pretrained(folder / "sound" / "acoustic")
    tiny_checkpoint(folder / "checkpoint")
    tiny_whisper(folder / "whisper")
    return folder


def languages_of(path):
    """Languages that a config names in directions."""
    if config_class(path) is not UnifiedTrainConfig:
        return set()
    components = yaml.safe_load(path.read_text())["mixture"]["components"]
    return {code for part in components for direction in part.get("directions", ()) for code in direction.split("-")}


def shrunk(data, world):
    """Return a config of the LM, or a part of one, at toy size."""
    exchanged = {
        "model": {"source": "random", "text_tokenizer": str(world / "text"), "hidden_size": 32, "num_layers": 1,
                  "num_heads": 2},
        "semantic_tokenizer": str(world / "semantic"),
        "start_from": str(world / "checkpoint"),
        "sound": str(world / "sound"),
    }  # fmt: skip
    result = {key: exchanged.get(key, value) for key, value in data.items()}
    if "training" in data:
        result["training"] = data["training"] | SHORT
    if "mixture" in data:
        components = [part | {"folder": str(world / "tokens")} for part in data["mixture"]["components"]]
        result["mixture"] = data["mixture"] | {"components": components}
    if "lora" in data:
        result["lora"] = data["lora"] | {"four_bit": None}
    return result


def written(data, folder):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(autouse=True)
def few_checked(monkeypatch):
    """All checks before the first step, on a few examples: on hundreds they take longer than the step."""
    monkeypatch.setattr(train_unified, "check_training", functools.partial(check_training, num_examples=8))


@pytest.mark.parametrize("path", files_for(UnifiedTrainConfig), ids=name_of)
def test_a_config_of_the_lm_trains_a_step(path, world, tmp_path):
    data = shrunk(yaml.safe_load(path.read_text()), world) | {"out": str(tmp_path / "out")}
    checkpoint = load_checkpoint(train_unified.main(written(data, tmp_path)))
    assert (checkpoint.acoustic is not None) == ("sound" in data)
    (logged, *_) = json.loads((tmp_path / "out.training" / "history.json").read_text())
    assert logged["loss"] > 0


@pytest.mark.parametrize("path", files_for(RecordedConfig), ids=name_of)
def test_every_stage_on_recordings_trains_a_step(path, world, tmp_path):
    data = yaml.safe_load(path.read_text()) | {"out": str(tmp_path / "out"), "data_from": str(tmp_path)}
    data["base"] = shrunk({"model": None}, world)["model"]
    for name in data["corpora"]:
        for kind, made in (("tokens", "tokens"), ("corpora", "corpus")):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / name).symlink_to(world / made)
    (tmp_path / "semantic").symlink_to(world / "semantic")
    (tmp_path / "sound").symlink_to(world / "sound")
    for name, stage in data["stages"].items():
        gauges = stage.get("gauges")
        short = {"gauges": gauges | {"every": 1, "num_items": 2, "max_text_tokens": 2}} if gauges else {}
        data["stages"][name] = stage | {"training": stage["training"] | SHORT} | short
    config, last = build_config(RecordedConfig, data), None
    for name in config.stages:
        recorded_steps.train(config, name, last)
        last = name
    checkpoint = load_checkpoint(recorded_steps.stage_folder(config, last))
    assert (checkpoint.acoustic is not None) == (config.sound is not None)


@pytest.mark.parametrize("path", files_for(SweepConfig), ids=name_of)
def test_a_sweep_trains_every_variant_a_step(path, world, tmp_path):
    data = yaml.safe_load(path.read_text())
    data["base"] = shrunk(data["base"], world) | {"out": str(tmp_path / "out")}
    # Variants that are alike at toy size, but for where rows start, run once; the program has parsed them all.
    load_config(SweepConfig, path)
    alike = {}
    for name, changes in data["variants"].items():
        changed = merged(data["base"], shrunk(changes, world))
        alike.setdefault(json.dumps(changed | {"row_init": None}, sort_keys=True), (name, shrunk(changes, world)))
    data["variants"] = dict(alike.values())
    data |= {"held_out": {"split": "validation", "num_examples": 2}, "evaluation": None}
    summary = sweep.main(written(data, tmp_path))
    assert list(summary) == sorted(data["variants"])


@pytest.mark.parametrize("path", files_for(SemanticTrainConfig), ids=name_of)
def test_a_semantic_tokenizer_is_fitted(path, world, tmp_path):
    data = yaml.safe_load(path.read_text())
    data["transformers"]["source"] = str(world / "whisper")
    data["tokenizer"]["codebook_size"] = 4
    data |= {"corpora": [str(world / "corpus")], "max_records": 4, "out": str(tmp_path / "out")}
    tokenizer = SemanticTokenizer.from_pretrained(train_semantic.main(written(data, tmp_path)))
    assert tokenizer.frame_rate == data["transformers"]["frame_rate"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/expected.json")), ids=name_of)
def test_what_is_expected_says_whether_it_ran(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    if "command" in content:  # figures of a run of ours: with the machine, and what was run
        assert "machine" in json.dumps(content)
        return
    assert content["ran_here"] is None
    assert content["note"].startswith("Not run for this release.")
    assert all("arXiv:" in figure["source"] for figure in content["published"])
    readme = (path.parent / "README.md").read_text(encoding="utf-8")
    assert "not run for this release" in readme.lower().replace("\n", " ")
    for figure in content["published"]:
        values = [value for row in figure.get("rows", [figure]) for value in row.values()]
        assert all(str(value) in readme for value in values if isinstance(value, float)), figure


@pytest.mark.parametrize("page", sorted(RECIPES.glob("*/README.md")), ids=name_of)
def test_commands_of_a_recipe_are_ours(page):
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    text = re.sub(r"\$\([^)]*\)", "part", text)  # what the shell puts in
    for line in re.findall(r"^ *((?:speechllm|python -m recipes|accelerate launch) .*)$", text, flags=re.MULTILINE):
        words = shlex.split(line, comments=True)
        for word in words:
            if word.startswith("recipes/"):
                assert (RECIPES.parent / word).exists(), f"there is no {word}"
        if words[0] == "speechllm":
            parse(words[1:])
        if words[:2] == ["speechllm", "prepare"]:
            parse_options(find_plugin("corpora", words[2]), [word for word in words[4:] if not word.startswith("-")])


def test_every_recipe_for_a_corpus_has_its_three_files():
    ours = {path.parent for path in RECIPES.glob("*/expected.json")}
    assert len(ours) >= 8
    for folder in ours:
        assert (folder / "README.md").is_file()
        assert (folder / "config.yaml").is_file()
