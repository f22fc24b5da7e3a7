"""Real input end to end at the smallest size, and the shipped configs."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from recipes import recorded_steps
from recipes.listening_card import listening_report
from recipes.recorded_steps import RecordedConfig, finish, stage_folder
from recipes.recorded_table import cell, expected_figures, results_page
from recipes.run_recorded import data_steps
from recipes.workflow import StepTimes
from speechllm.config import build_config, load_config
from speechllm.errors import ConfigError
from speechllm.evaluation import Judges
from speechllm.evaluation.results import CODEC_COPY, MODEL, ORIGINAL, RESYNTHESIS
from speechllm.hub import load_checkpoint
from speechllm.model_card import CardInfo, model_card
from speechllm.pipelines.system import SpeechSystem
from speechllm.training.unified import history_file

RECIPES = Path(__file__).parents[3] / "recipes"
SENTENCES = [f"The {animal} {verb}." for animal in ("dog", "cat", "old horse") for verb in ("runs", "sleeps", "eats 2")]


TRAINING = {"max_steps": 2, "max_tokens": 128, "rows_per_batch": 1, "show_progress": False, "cpu": True}
STAGE = {
    "optimizer": {"kind": "adamw"},
    "training": TRAINING,
    "mixture": {"components": [{"tasks": "ASR", "folder": "text"}]},
}


def config(folder: Path, **changes) -> RecordedConfig:
    (folder / "text.en").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    options = {"sources": {"en": str(folder / "text.en")}, "num_sentences": 5, "num_held_out": 2}
    content = {
        "out": str(folder / "out"),
        "corpora": {"text": {"script": "spoken-text", "options": options}},
        "semantic": {"kind": "log-mel", "tokenizer": {"codebook_size": 16}},
        "text_lm": {"vocab_size": 280, "model": {"hidden_size": 32, "num_layers": 1}, "training": TRAINING},
        "stages": {"rows": {**STAGE, "only_new_rows": True}, "all": STAGE},
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


SOUND = {
    "corpus": "text",
    "codec": {"mel_rvq": {"num_codebooks": 2, "codebook_size": 16, "mel": {"num_mels": 20}}},
    "soundstorm": {
        "num_codebooks": 2,
        "at_once": True,
        "trunk": {"width": 16, "num_layers": 1, "num_heads": 2},
        "loop": {"steps": 1, "progress": False},
    },
}
TASKS = ["AST", "TTS", "S2ST", "ASR AST S2ST"]
SCORED = {
    "splits": ["test"], "spoken_splits": ["test"], "tasks": TASKS, "directions": ["fr-en", "en"], "num_items": 2,
    "num_spoken_items": 2, "num_samples": 0, "speaker_embedder": "none", "bootstrap": {"num_resamples": 10},
    "decoding": {"max_text_tokens": 4, "max_audio_seconds": 0.5, "candidates": {"count": 2}},
}  # fmt: skip


class WordJudge:
    """Hears the same in everything."""

    def __init__(self, name: str):
        self.name = name

    def speaks(self, language):
        return True

    def transcribe(self, audios, language):
        return ["the cat" for _ in audios]


def every_task(folder: Path) -> RecordedConfig:
    """Return a recipe whose checkpoint hears, translates and speaks, with gauges while it learns."""
    french = [line.replace("The", "Le") for line in SENTENCES]
    (folder / "text.fr").write_text("\n".join(french) + "\n", encoding="utf-8")
    training = {"max_steps": 1, "max_tokens": 192, "rows_per_batch": 1, "show_progress": False, "cpu": True}
    components = [{"tasks": tasks, "folder": "text"} for tasks in ("ASR", *TASKS)]
    stage = {
        "optimizer": {"kind": "adamw"}, "training": training, "mixture": {"components": components},
        "gauges": {"folder": "text", "split": "validation", "every": 1, "num_items": 2, "max_text_tokens": 2},
    }  # fmt: skip
    sources = {language: str(folder / f"text.{language}") for language in ("en", "fr")}
    options = {"sources": sources, "num_sentences": 5, "num_held_out": 2}
    return config(
        folder,
        corpora={"text": {"script": "spoken-text", "options": options}},
        stages={"first": stage, "last": stage},
        sound=SOUND,
        evaluation={"text": SCORED},
    )


def test_with_sound_the_checkpoint_is_a_whole_system_and_every_task_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "speechllm.evaluation.evaluate.make_judges",
        lambda _: Judges(WordJudge("first"), WordJudge("first"), second=WordJudge("second")),
    )
    recipe = every_task(tmp_path)
    for step in data_steps(recipe):
        step.function(*step.arguments)
    recorded_steps.train_text_lm(recipe)
    recorded_steps.fit_sound(recipe)
    recorded_steps.train(recipe, "first", None)
    recorded_steps.train(recipe, "last", "first")
    recorded_steps.measure(recipe, "last")
    recorded_steps.evaluate(recipe, "text", "last")
    finish(recipe, {"last": StepTimes(wall_seconds=1.0, cpu_seconds=1.0, num_threads=1)})

    system = SpeechSystem.from_pretrained(stage_folder(recipe, "last"))
    assert system.can_speak
    logged = {name for line in json.loads(history_file(stage_folder(recipe, "last")).read_text()) for name in line}
    assert {"eval_wer_real/en", "eval_wer_shuffled/en", "eval_text_perplexity"} <= logged

    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = results["reports"]["text"]["measurements"]
    assert {(m["task"], m["direction"]) for m in found} == {
        ("AST", "fr-en"), ("TTS", "en"), ("TTS", "fr"), ("S2ST", "fr-en"), ("ASR AST S2ST", "fr-en"),
    }  # fmt: skip
    spoken = [m for m in found if m["task"] == "S2ST"]
    assert {m["score"]["name"] for m in spoken} == {
        f"{name}{by}" for name in ("ASR-BLEU", "WER", "CER") for by in ("", " by second")
    }
    assert {m["system"] for m in spoken} == {MODEL, ORIGINAL, CODEC_COPY, RESYNTHESIS}
    _check_published(results)


def _check_published(results):
    """Card and page hold what was measured."""
    (asr,) = results["tests"]
    page = results_page(results, "A title")
    assert f"| text | synthetic | 2 | {cell(asr['real'])} | {cell(asr['shuffled'])} |" in page
    (score,) = [
        m["score"] for m in results["reports"]["text"]["measurements"]
        if (m["task"], m["direction"], m["system"]) == ("TTS", "en", MODEL) and m["score"]["name"] == "CER by second"
    ]  # fmt: skip
    assert f"| [TTS] | en | audio | CER by second | 2 | {cell(score)} |" in page
    figures = expected_figures(results)
    assert figures["reports"]["text"]["TTS en audio CER by second model"] == cell(score)
    assert figures["tests"]["text"]["gain"].startswith(f"{asr['gain']['difference']:.1f}"[:3])
    report = listening_report(results, results["environment"])
    card = ModelCard(model_card(report, CardInfo(model_name="x", license=None)))
    metrics = {(r.dataset_split, r.metric_name) for r in card.data.eval_results or []}
    assert ("text, test", "ASR-BLEU (S2ST, fr-en)") in metrics
    assert not any("second" in name for _, name in metrics), "a second opinion is no headline"


def test_a_section_may_not_name_a_corpus_that_is_not_there(tmp_path):
    for changes in (
        {"sound": {**SOUND, "corpus": "tex"}},
        {"evaluation": {"tex": SCORED}},
        {"stages": {"all": {**STAGE, "gauges": {"folder": "tex"}}}},
    ):
        with pytest.raises(ConfigError, match="no corpus 'tex'; did you mean 'text'"):
            config(tmp_path, **changes)


@pytest.mark.parametrize(
    "name",
    [
        "recorded_small/config.yaml",
        "smollm2_whisper/config.yaml",
        "smollm2_whisper/config_cpu.yaml",
        "smollm2_whisper/config_lora.yaml",
    ],
)
def test_shipped_configs_are_whole(name):
    recipe = load_config(RecordedConfig, RECIPES / name)
    assert recipe.semantic.transformers is not None
    assert yaml.safe_load((RECIPES / name).read_text())["out"] == recipe.out
