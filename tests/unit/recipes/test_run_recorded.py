"""Real input end to end at the smallest size, and the shipped configs."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from recipes import recorded_steps
from recipes.recorded_steps import RecordedConfig, finish, stage_folder
from recipes.run_recorded import data_steps
from recipes.workflow import StepTimes
from speechllm.config import build_config, load_config
from speechllm.errors import ConfigError
from speechllm.hub import load_checkpoint

RECIPES = Path(__file__).parents[3] / "recipes"
SENTENCES = [f"The {animal} {verb}." for animal in ("dog", "cat", "old horse") for verb in ("runs", "sleeps", "eats 2")]


def config(folder: Path, **changes) -> RecordedConfig:
    (folder / "text.en").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    training = {"max_steps": 2, "max_tokens": 128, "rows_per_batch": 1, "show_progress": False, "cpu": True}
    stage = {
        "optimizer": {"kind": "adamw"},
        "training": training,
        "mixture": {"components": [{"tasks": "ASR", "folder": "text"}]},
    }
    options = {"sources": {"en": str(folder / "text.en")}, "num_sentences": 5, "num_held_out": 2}
    content = {
        "out": str(folder / "out"),
        "corpora": {"text": {"script": "spoken-text", "options": options}},
        "semantic": {"kind": "log-mel", "tokenizer": {"codebook_size": 16}},
        "text_lm": {"vocab_size": 280, "model": {"hidden_size": 32, "num_layers": 1}, "training": training},
        "stages": {"rows": {**stage, "only_new_rows": True}, "all": stage},
        "tests": {"text": {"corpus": "text", "language": "en"}},
        "listening": {"num_items": 2, "max_text_tokens": 4},
    }
    return build_config(RecordedConfig, content | changes)


def test_from_text_to_a_measured_checkpoint(tmp_path):
    recipe = config(tmp_path)
    for step in data_steps(recipe):
        step.function(*step.arguments)
    recorded_steps.train_text_lm(recipe)
    recorded_steps.train(recipe, "rows", None)
    recorded_steps.train(recipe, "all", "rows")
    recorded_steps.measure(recipe, "all")
    finish(recipe, {"all": StepTimes(wall_seconds=1.0, cpu_seconds=1.0, num_threads=1)})

    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (test,) = results["tests"]
    assert (test["name"], test["real"]["num_scored"], test["num_in_training"]) == ("text", 2, 0)
    assert test["label_source"] == "synthetic"
    assert results["text_perplexity"]["before"] > 1
    model = AutoModelForCausalLM.from_pretrained(stage_folder(recipe, "all"))
    assert model.config.vocab_size == load_checkpoint(stage_folder(recipe, "all")).processor.vocabulary.size


def test_a_stage_may_not_name_a_corpus_that_is_not_there(tmp_path):
    tests = {"x": {"corpus": "texts", "language": "en"}}
    with pytest.raises(ConfigError, match=r"no corpus 'texts'; did you mean 'text'\? \(corpora: text\)"):
        config(tmp_path, tests=tests)
    with pytest.raises(ConfigError, match="stages is empty"):
        config(tmp_path, stages={})


@pytest.mark.parametrize(
    "name", ["recorded_small/config.yaml", "smollm2_whisper/config.yaml", "smollm2_whisper/config_lora.yaml"]
)
def test_shipped_configs_are_whole(name):
    recipe = load_config(RecordedConfig, RECIPES / name)
    assert recipe.semantic.transformers is not None
    assert yaml.safe_load((RECIPES / name).read_text())["out"] == recipe.out
