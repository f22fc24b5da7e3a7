"""From a folder of audio and a config to a codec and its report."""

import json
from pathlib import Path

import pytest

import recipes
from recipes.train_codec import CodecRecipeConfig, main
from speechllm.audio import Audio, save_audio
from speechllm.config import load_config
from speechllm.errors import ConfigError
from speechllm.tokenizers.codec import load_codec
from tests.support.tiny_codecs import tones

FOLDER = Path(recipes.__file__).parent / "codec_16khz"


def test_the_smoke_config_trains_resumes_and_reports(tmp_path):
    for seed in range(3):
        save_audio(Audio(tones(seed, 8_000).numpy(), 16_000), tmp_path / f"{seed}.wav")
    overrides = [f"audio=[{tmp_path}]", f"out={tmp_path / 'out'}", "train.loop.progress=false"]
    overrides += ["train.loop.steps=2", "train.batch_size=2", "train.crop_seconds=0.1"]
    overrides += ["train.codec.seanet.width=2", "train.discriminator.width=2", "max_measured=5"]
    folder = main(FOLDER / "smoke.yaml", overrides)
    report = json.loads((folder / "report.json").read_text())
    codec = load_codec(folder)
    assert (codec.num_codebooks, codec.frame_rate) == (4, 50.0)
    assert report["fingerprint"] == codec.fingerprint
    assert (report["steps"], report["num_training_recordings"], report["num_measured_recordings"]) == (2, 2, 1)
    assert [row["levels"] for row in report["levels"]] == [1, 2, 4]
    assert main(FOLDER / "smoke.yaml", overrides) == folder
    assert json.loads((folder / "report.json").read_text()) == report


def test_the_full_config_is_the_papers():
    config = load_config(CodecRecipeConfig, FOLDER / "config.yaml")
    assert config.train.codec.quantizer.num_codebooks == 12
    assert config.train.codec.seanet.samples_per_frame == 320


def test_no_audio_is_said_in_one_line():
    with pytest.raises(ConfigError, match="corpora and audio are both empty"):
        main(FOLDER / "smoke.yaml")
