"""From a folder of audio and a config to a codec and its report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import recipes
from recipes.train_codec import CodecRecipeConfig, main
from speechllm.audio import Audio, load_audio, save_audio
from speechllm.config import load_config
from speechllm.errors import ConfigError
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.soundstream import SoundStreamCodec
from speechllm.training.neural_codec import CodecAndCritics
from speechllm.training.recordings import Recordings
from tests.support.tiny_codecs import tones

FOLDER = Path(recipes.__file__).parent / "codec_16khz"


def test_the_smoke_config_trains_resumes_and_reports(tmp_path):
    (tmp_path / "audio").mkdir()
    for seed in range(3):
        save_audio(Audio(tones(seed, 8_000).numpy(), 16_000), tmp_path / "audio" / f"{seed}.wav")
    overrides = [f"audio=[{tmp_path}/audio]", f"out={tmp_path / 'out'}", "train.loop.progress=false"]
    overrides += ["train.loop.steps=2", "train.batch_size=2", "train.crop_seconds=0.1", "train.quantize_from_step=1"]
    overrides += ["train.codec.seanet.width=2", "train.discriminator.width=2", "max_measured=5"]
    folder = main(FOLDER / "smoke.yaml", overrides)
    report = json.loads((folder / "report" / "report.json").read_text())
    codec = load_codec(folder)
    assert (codec.num_codebooks, codec.frame_rate) == (4, 50.0)
    assert report["fingerprint"] == codec.fingerprint
    assert (report["steps"], report["num_training_recordings"], report["num_measured_recordings"]) == (2, 2, 1)
    assert [row["levels"] for row in report["levels"]] == [1, 2, 4]
    _check_page(folder / "report", samples=1, levels=(1, 2, 4))
    assert main(FOLDER / "smoke.yaml", overrides) == folder
    assert json.loads((folder / "report" / "report.json").read_text()) == report
    with pytest.raises(ConfigError, match=r"was made with train\.batch_size = 2, the config has 3"):
        main(FOLDER / "smoke.yaml", [*overrides, "train.batch_size=3"])


def _check_page(folder, samples, levels):
    """Every file that the page names is there, and a copy of a recording is as long as the recording."""
    page = (folder / "report.md").read_text()
    named = set(re.findall(r"\(([\w/.-]+)\)", page))
    versions = ["original", *(f"{k}_level{'s' if k > 1 else ''}" for k in levels)]
    sounds = {f"samples/{i}-{version}.flac" for i in range(samples) for version in versions}
    assert named == {"levels.svg", "losses.svg"} | sounds | {path.replace(".flac", ".png") for path in sounds}
    assert all((folder / path).stat().st_size > 0 for path in named)
    assert {load_audio(folder / path).num_samples for path in sounds} == {8_000}
    assert page.count("\n| 1 | ") == 1


def test_only_recordings_that_were_measured_are_counted(tmp_path, monkeypatch):
    sources = [(30_000 * tones(seed, 8_000).numpy()).astype(np.int16) for seed in range(3)]
    recordings = Recordings([*sources, np.zeros(0, np.int16)], 16_000)
    monkeypatch.setattr("recipes.train_codec.load_recordings", lambda **_: recordings)
    monkeypatch.setattr(Recordings, "split", lambda self, share, *, seed: (self, self))
    overrides = [
        f"audio=[{tmp_path}/audio]",
        f"out={tmp_path / 'out'}",
        "train.loop.progress=false",
        "train.loop.steps=1",
    ]
    overrides += [
        "train.quantize_from_step=0",
        "train.batch_size=1",
        "train.crop_seconds=0.1",
        "train.codec.seanet.width=2",
        "train.discriminator=null",
    ]
    report = json.loads((main(FOLDER / "smoke.yaml", overrides) / "report" / "report.json").read_text())
    assert (report["num_training_recordings"], report["num_measured_recordings"]) == (4, 3)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.endswith(".partial")] == []


def test_the_full_config_is_the_papers():
    config = load_config(CodecRecipeConfig, FOLDER / "config.yaml")
    assert config.train.codec.quantizer.num_codebooks == 12
    assert config.train.codec.seanet.samples_per_frame == 320


@pytest.mark.parametrize(
    ("name", "rate", "frames", "kbps"),
    [("config", 16_000, 50, 6.0), ("config_24khz", 24_000, 75, 6.0), ("small", 16_000, 50, 3.2)],
)
def test_every_config_is_parsed_and_makes_a_codec_of_its_rates(name, rate, frames, kbps):
    config = load_config(CodecRecipeConfig, FOLDER / f"{name}.yaml")
    with torch.device("meta"):
        codec = SoundStreamCodec(config.train.codec)
        CodecAndCritics(config.train)
    assert (codec.sample_rate, codec.frame_rate) == (rate, frames)
    assert codec.bitrate_kbps == pytest.approx(kbps)


@pytest.mark.parametrize("name", ["config_24khz", "small"])
def test_a_config_trains_when_it_is_made_small(name, tmp_path):
    rate = load_config(CodecRecipeConfig, FOLDER / f"{name}.yaml").train.codec.sample_rate
    (tmp_path / "audio").mkdir()
    for seed in range(3):
        save_audio(Audio(tones(seed, rate // 2).numpy(), rate), tmp_path / "audio" / f"{seed}.wav")
    overrides = [
        f"audio=[{tmp_path}/audio]",
        f"out={tmp_path / 'out'}",
        "train.loop.progress=false",
        "train.loop.steps=2",
    ]
    overrides += ["train.batch_size=1", "train.crop_seconds=0.1", "train.quantize_from_step=1", "train.kmeans_crops=2"]
    overrides += ["train.codec.seanet.width=2", "train.codec.seanet.latent_width=4", "train.discriminator.width=1"]
    overrides += ["train.codec.quantizer.codebook_size=8", "train.loop.warmup_steps=1"]
    overrides += ["train.discriminator.windows=[256]", "train.losses.adversarial_from_step=0"]
    assert load_codec(main(FOLDER / f"{name}.yaml", overrides)).sample_rate == rate


def test_a_report_among_the_recordings_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="lies in the audio folder"):
        main(FOLDER / "smoke.yaml", [f"audio=[{tmp_path}]", f"out={tmp_path / 'deep' / 'out'}"])


def test_no_audio_is_said_in_one_line():
    with pytest.raises(ConfigError, match="corpora and audio are both empty"):
        main(FOLDER / "smoke.yaml")
