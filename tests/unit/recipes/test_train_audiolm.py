"""From a prepared corpus to AudioLM and its samples, and the shipped config."""

from pathlib import Path

import pytest
import yaml

from recipes.train_audiolm import AudioLMRecipeConfig, main
from speechllm.audio import encode_flac, load_audio
from speechllm.config import load_config
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record
from speechllm.errors import ConfigError
from speechllm.models.audiolm import AudioLM
from tests.support.tiny import tiny_speech

RECIPES = Path(__file__).parents[3] / "recipes"


def test_a_corpus_becomes_a_model_that_is_kept_and_samples(tmp_path):
    prepare_corpus(
        [
            Record(f"{split}{i}", split, "en", "one", encode_flac(tiny_speech(1.0, seed=i)))
            for i, split in enumerate(("train", "train", "train", "test"))
        ],
        tmp_path / "corpus",
    )
    content = yaml.safe_load((RECIPES / "audiolm_small" / "config.yaml").read_text(encoding="utf-8"))
    content |= {"corpus": str(tmp_path / "corpus"), "out": str(tmp_path / "out")}
    content["semantic"]["tokenizer"]["codebook_size"] = 8
    content["codec"]["mel_rvq"] |= {"codebook_size": 8, "vocoder": {"num_iterations": 2}}
    for stage in ("semantic", "coarse", "fine"):
        content["audiolm"][stage]["lm"]["decoder"] = {"width": 16, "num_layers": 1, "num_heads": 2, "feed_forward": 32}
        content["audiolm"][stage]["loop"] |= {"steps": 2, "bf16": False}
        content["audiolm"][stage]["batch_size"] = 2
    content["samples"] = {"count": 1, "prompt_seconds": 0.4, "seconds": 0.4}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")

    folder = main(path)
    assert AudioLM.from_pretrained(folder).config.num_codebooks == 6
    samples = sorted(file.name for file in (tmp_path / "out" / "samples").iterdir())
    assert samples == ["acoustic-0.wav", "continuation-0.wav", "unconditional-0.wav"]
    assert load_audio(tmp_path / "out" / "samples" / "continuation-0.wav").duration_seconds > 0.4
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert main(path, ["audiolm.fine.loop.progress=true"]) == folder, "shows more, makes the same"
    with pytest.raises(ConfigError, match=r"was made with audiolm\.seed = 0, the config has 5"):
        main(path, ["audiolm.seed=5"])
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_the_shipped_config_is_whole():
    config = load_config(AudioLMRecipeConfig, RECIPES / "audiolm_small" / "config.yaml")
    assert config.audiolm.semantic is not None
    assert (config.audiolm.semantic.lm.dedup, config.audiolm.coarse.lm.dedup) == (True, True)
