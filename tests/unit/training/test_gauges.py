"""Gauges tell a model that listens from one that guesses, and leave the training as it was."""

import dataclasses
import json

import pytest
import torch

from recipes.train_unified import main
from speechllm.config import load_config
from speechllm.errors import ConfigError, DataError
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoded import Decoded
from speechllm.segments import TextSegment
from speechllm.training.gauges import GaugeConfig, Gauges, own_forward, text_perplexity
from speechllm.training.unified import UnifiedTrainConfig, load_extended_lm
from tests.support.tiny import tiny_model
from tests.unit.training.test_unified import equal, write_recipe


@pytest.fixture
def parts(tmp_path):
    path = write_recipe(tmp_path)
    config = load_config(UnifiedTrainConfig, path)
    components = [dataclasses.replace(config.mixture.components[0], tasks=tasks) for tasks in ("ASR", "MT")]
    mixture = dataclasses.replace(config.mixture, components=components)
    return path, load_extended_lm(config).processor, mixture, str(tmp_path / "tokens")


def test_a_model_that_hears_is_told_from_one_that_guesses(parts, monkeypatch):
    _, processor, mixture, folder = parts
    gauges = Gauges(GaugeConfig(folder=folder, split="train", num_items=4), processor, mixture)
    texts = ["one two", "three four", "five six", "seven eight"]
    gauges.spoken["en"] = [
        dataclasses.replace(row, text=text) for row, text in zip(gauges.spoken["en"], texts, strict=True)
    ]

    def decode(answers):
        def decode(self, prompts, grammars, config):
            given = answers if len(prompts) == 4 else ["un deux"] * len(prompts)
            pairs = zip(prompts, given, strict=True)
            return [Decoded(prompt, [TextSegment(text)], "eos", 0.0) for prompt, text in pairs]

        return decode

    model = tiny_model(processor.vocabulary.size)
    monkeypatch.setattr(LMDecoder, "decode", decode(texts))
    found = gauges.measure(model)
    assert (found["eval_wer_real/en"], found["eval_wer_shuffled/en"]) == (0.0, 100.0)
    monkeypatch.setattr(LMDecoder, "decode", decode(["one two"] * 4))
    found = gauges.measure(model)
    assert found["eval_wer_real/en"] == found["eval_wer_shuffled/en"] == 75.0
    assert found["eval_text_perplexity"] > 1


def test_translation_is_scored_both_ways_it_stands_in(parts):
    _, processor, mixture, folder = parts
    gauges = Gauges(GaugeConfig(folder=folder, split="train"), processor, mixture)
    found = gauges.measure(tiny_model(processor.vocabulary.size))
    assert set(found) == {"eval_wer_real/en", "eval_wer_shuffled/en", "eval_bleu_mt/en-fr", "eval_text_perplexity"}


@pytest.mark.parametrize("lora", ["null", "{rank: 2}"])
def test_training_ends_with_the_same_weights_and_logs_what_it_heard(tmp_path, lora):
    path = write_recipe(tmp_path, max_steps=4, bf16=True, dropout=0.1)
    gauges = f"gauges={{folder: {tmp_path / 'tokens'}, split: train, every: 2, num_items: 3, max_text_tokens: 4}}"
    outs = [
        main(path, [f"out={tmp_path / name}", f"lora={lora}", *more]) for name, more in (("a", []), ("b", [gauges]))
    ]
    models = [load_extended_lm(load_config(UnifiedTrainConfig, path, [f"start_from={out}"])).model for out in outs]
    assert equal(*models)
    lines = json.loads((tmp_path / "b.training" / "history.json").read_text())
    measured = [line for line in lines if "eval_wer_real/en" in line]
    assert [line["step"] for line in measured] == [2, 4]
    assert all(line["eval_text_perplexity"] > 1 for line in measured)
    assert not any(
        "eval_wer_real/en" in line for line in json.loads((tmp_path / "a.training/history.json").read_text())
    )


def test_the_decoder_sees_the_model_and_not_its_autocast(parts):
    _, processor, _, _ = parts
    model = tiny_model(processor.vocabulary.size)
    inner = model.forward
    model.forward = lambda *args, **kwargs: inner(*args, **kwargs)
    with own_forward(model):
        assert LMDecoder(model, processor).lm.has_cut_head
    assert "forward" in model.__dict__


def test_perplexity_of_a_model_that_knows_nothing_is_the_number_of_ids(parts):
    _, processor, _, _ = parts
    model = tiny_model(processor.vocabulary.size)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    size = processor.vocabulary["text"].size
    assert text_perplexity(model, processor, ["good morning", "light"]) == pytest.approx(size, rel=1e-5)


def test_errors(parts, tmp_path):
    _, processor, mixture, folder = parts
    with pytest.raises(ConfigError, match=r"gauges\.every = 0"):
        GaugeConfig(folder=folder, every=0)
    with pytest.raises(ConfigError, match="one is shuffled with another"):
        GaugeConfig(folder=folder, num_items=1)
    with pytest.raises(DataError, match="test"):
        Gauges(GaugeConfig(folder=folder, split="test"), processor, mixture)
    with pytest.raises(DataError, match=r"gauges\.texts = .* is no \.txt or \.jsonl file"):
        Gauges(GaugeConfig(folder=folder, split="train", texts=str(tmp_path / "no")), processor, mixture)
