"""Training a codec: two sides in one step, resume equals uninterrupted, the spectral loss falls."""

import json

import pytest
import torch

from speechllm.errors import CheckpointError, ConfigError
from speechllm.nn.rvq import RVQConfig
from speechllm.nn.seanet import SEANetConfig
from speechllm.nn.stft_discriminator import STFTDiscriminatorConfig
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.soundstream import SoundStreamConfig
from speechllm.training.codec_losses import discriminator_loss
from speechllm.training.loop import LoopConfig, train_stage
from speechllm.training.neural_codec import (
    CodecAndCritics,
    CodecLossConfig,
    NeuralCodecStage,
    NeuralCodecTrainConfig,
    measure_codec,
    train_neural_codec,
)
from speechllm.training.optim import OptimizerConfig
from speechllm.training.recordings import Recordings
from tests.support.tiny_codecs import tones

CRITICS = STFTDiscriminatorConfig(windows=(256, 64), width=4)


def config(discriminator=CRITICS, losses=None, crop_seconds=0.1, **loop):
    options = {"steps": 4, "progress": False, "log_every": 1, "save_every": 2, "clip_norm": 0.0} | loop
    options.setdefault("optimizer", OptimizerConfig(learning_rate=2e-3, betas=(0.5, 0.9)))
    return NeuralCodecTrainConfig(
        codec=SoundStreamConfig(
            seanet=SEANetConfig(width=4, latent_width=16, strides=(4, 5), dilations=(1, 3)),
            quantizer=RVQConfig(num_codebooks=3, codebook_size=16, decay=0.9),
        ),
        discriminator=discriminator,
        losses=losses or CodecLossConfig(),
        batch_size=4,
        crop_seconds=crop_seconds,
        loop=LoopConfig(**options),
    )


def recordings(count=4):
    return Recordings([(tones(seed, 8_000) * 32_767).short().numpy() for seed in range(count)], 16_000)


def test_batches_are_a_function_of_seed_and_step():
    first, again = (NeuralCodecStage(recordings(), config()) for _ in range(2))
    again.batch(5)
    assert torch.equal(first.batch(3)["waveforms"], again.batch(3)["waveforms"])
    assert not torch.equal(first.batch(3)["waveforms"], first.batch(4)["waveforms"])
    assert first.batch(3)["waveforms"].shape == (4, 1_600)


def test_a_crop_is_whole_frames():
    assert NeuralCodecStage(recordings(), config(crop_seconds=0.1001)).batch(0)["waveforms"].shape == (4, 1_620)


def test_each_side_learns_from_its_own_loss():
    network = CodecAndCritics(config()).train()
    waveforms = torch.stack([tones(seed, 1_600) for seed in range(4)])
    network.codec(waveforms)
    network.eval()
    loss, parts = network(waveforms)
    weights = list(network.discriminator.parameters())
    ours = torch.autograd.grad(loss, weights, retain_graph=True)
    made = network.codec(waveforms).waveforms.detach()
    alone = discriminator_loss(network.discriminator(waveforms), network.discriminator(made))
    torch.testing.assert_close(ours, torch.autograd.grad(alone, weights))
    torch.testing.assert_close(parts["discriminator"], alone)
    silent = torch.autograd.grad(parts["discriminator"], list(network.codec.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in silent)
    reached = torch.autograd.grad(loss, list(network.codec.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in reached)
    assert all(weight.requires_grad for weight in weights)


@pytest.mark.parametrize("discriminator", [CRITICS, None], ids=["critics", "spectral"])
def test_resume_equals_uninterrupted(discriminator, tmp_path):
    whole = NeuralCodecStage(recordings(), config(discriminator))
    reference = train_stage(whole, whole.config.loop, tmp_path / "whole")
    for _ in range(2):
        stopped = NeuralCodecStage(recordings(), config(discriminator, max_seconds=1e-9))
        train_stage(stopped, stopped.config.loop, tmp_path / "parts")
    resumed = NeuralCodecStage(recordings(), config(discriminator))
    report = train_stage(resumed, resumed.config.loop, tmp_path / "parts")
    assert (report.resumed_from, report.steps) == (2, 4)
    assert report.losses == reference.losses
    ours, theirs = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert bool(ours["codec.quantizer.is_fitted"])
    assert float(ours["balancer.counts"].min()) > 1


def test_training_lowers_the_spectral_loss_and_saves_a_codec(tmp_path):
    setting = config(None, steps=70, optimizer=OptimizerConfig(learning_rate=5e-3, betas=(0.5, 0.9)), save_every=70)
    codec, report = train_neural_codec(recordings(), setting, tmp_path)
    assert report.losses[-1] < 0.8 * report.losses[0]
    again = load_codec(tmp_path)
    waveforms = torch.stack([tones(seed, 8_000) for seed in (0, 50)])
    assert not codec.training
    assert again.fingerprint == codec.fingerprint
    assert torch.equal(again.encode(waveforms), codec.encode(waveforms))
    rows = measure_codec(again, list(waveforms))
    assert [row["levels"] for row in rows] == [1, 2, 3]
    assert [row["bitrate_kbps"] for row in rows] == pytest.approx([3.2, 6.4, 9.6])
    assert rows[-1]["mel_distance"] < rows[0]["mel_distance"]
    assert all(1 <= row["perplexity"] <= 16 for row in rows)


def test_the_codec_hears_the_critics_from_a_step_on_and_they_learn_before(tmp_path):
    losses = CodecLossConfig(adversarial_from_step=2)
    stage = NeuralCodecStage(recordings(), config(losses=losses, steps=3, save_every=3))
    before = {name: weight.clone() for name, weight in stage.network.discriminator.named_parameters()}
    train_stage(stage, stage.config.loop, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert ["adversarial" in row for row in rows] == [False, False, True]
    assert all(row["discriminator"] > 0 for row in rows)
    assert any(not torch.equal(before[name], w) for name, w in stage.network.discriminator.named_parameters())
    # 1 + 0.999 + 0.999^2 for losses of every step, 1 for those of the last.
    assert stage.network.balancer.counts.tolist() == pytest.approx([2.997001, 2.997001, 1.0, 1.0])


def test_bfloat16_trains_the_same_parts(tmp_path):
    stages = [NeuralCodecStage(recordings(), config(bf16=bf16, steps=1)) for bf16 in (False, True)]
    losses = [train_stage(s, s.config.loop, tmp_path / str(i)).losses[0] for i, s in enumerate(stages)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_history_has_every_part(tmp_path):
    stage = NeuralCodecStage(recordings(), config(steps=1))
    train_stage(stage, stage.config.loop, tmp_path)
    row = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[0])
    assert {"waveform", "mel", "adversarial", "features", "commitment", "discriminator"} <= set(row)


def test_another_rate_another_model_and_no_size_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="recordings are at 8000 Hz"):
        NeuralCodecStage(Recordings([recordings().sources[0]], 8_000), config())
    with pytest.raises(ConfigError, match="batch_size = 0"):
        NeuralCodecTrainConfig(loop=LoopConfig(steps=1), batch_size=0)
    with pytest.raises(ConfigError, match="no waveforms to measure"):
        measure_codec(NeuralCodecStage(recordings(), config()).network.codec, [])
    train_neural_codec(recordings(), config(steps=1), tmp_path)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train_neural_codec(recordings(), config(None, steps=1), tmp_path)
