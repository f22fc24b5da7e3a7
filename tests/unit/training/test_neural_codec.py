"""Training a codec: two sides in one step, resume equals uninterrupted, the spectral loss falls."""

import json
from dataclasses import replace

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


def config(discriminator=CRITICS, losses=None, crop_seconds=0.1, quantize_from_step=0, **loop):
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
        quantize_from_step=quantize_from_step,
        kmeans_crops=8,
        loop=LoopConfig(**options),
    )


def recordings(count=4):
    return Recordings([(tones(seed, 8_000) * 32_767).short().numpy() for seed in range(count)], 16_000)


def noisy_tones(seed):
    """Between the harmonics of a clean tone there is nothing: its log spectrum would be all about that."""
    return tones(seed, 8_000) + 0.02 * torch.randn(8_000, generator=torch.Generator().manual_seed(seed))


def noisy_recordings(count=4):
    return Recordings([(noisy_tones(seed) * 30_000).short().numpy() for seed in range(count)], 16_000)


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


@pytest.mark.parametrize("quantize_from_step", [0, 1, 3])
@pytest.mark.parametrize("discriminator", [CRITICS, None], ids=["critics", "spectral"])
def test_resume_equals_uninterrupted(discriminator, quantize_from_step, tmp_path):
    def stage(**loop):
        return NeuralCodecStage(recordings(), config(discriminator, quantize_from_step=quantize_from_step, **loop))

    whole = stage()
    reference = train_stage(whole, whole.config.loop, tmp_path / "whole")
    for _ in range(2):
        stopped = stage(max_seconds=1e-9)
        train_stage(stopped, stopped.config.loop, tmp_path / "parts")
    resumed = stage()
    report = train_stage(resumed, resumed.config.loop, tmp_path / "parts")
    assert (report.resumed_from, report.steps) == (2, 4)
    assert report.losses == reference.losses
    ours, theirs = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert bool(ours["codec.quantizer.is_fitted"])
    assert float(ours["balancer.counts"].min()) > 1


def test_nothing_is_quantised_before_its_step_and_then_kmeans_has_many_crops(tmp_path):
    stage = NeuralCodecStage(recordings(), config(None, quantize_from_step=2, steps=3, save_every=3))
    fitted, commitments = [], []
    for step in range(3):
        _, parts = stage.loss(stage.batch(step))
        fitted.append(bool(stage.network.codec.quantizer.is_fitted))
        commitments.append(parts["commitment"])
    assert fitted == [False, False, True]
    assert commitments[:2] == [0, 0]
    assert commitments[2] > 0
    # 8 crops of 80 frames; since then one batch has moved the averages.
    counts = float(stage.network.codec.quantizer.counts[0].sum())
    assert counts == pytest.approx(0.9 * 8 * 80 + 0.1 * 4 * 80, rel=0.05)


def test_it_begins_with_a_codec_that_is_there(tmp_path):
    first, _ = train_neural_codec(recordings(), config(None), tmp_path / "first")
    setting = replace(config(CRITICS), start_from=str(tmp_path / "first"))
    stage = NeuralCodecStage(recordings(), setting)
    ours, theirs = stage.network.codec.state_dict(), first.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    other = replace(setting, codec=replace(setting.codec, quantizer=RVQConfig(num_codebooks=2, codebook_size=16)))
    with pytest.raises(CheckpointError, match="a codec of other sizes"):
        NeuralCodecStage(recordings(), other)


def test_training_lowers_the_loss_and_every_level_brings_the_sound_closer(tmp_path):
    optimizer = OptimizerConfig(learning_rate=3e-3, betas=(0.8, 0.99))
    setting = config(None, steps=70, quantize_from_step=20, optimizer=optimizer, save_every=70)
    codec, report = train_neural_codec(noisy_recordings(), setting, tmp_path)
    assert report.losses[-1] < 0.8 * report.losses[0]
    again = load_codec(tmp_path)
    waveforms = torch.stack([noisy_tones(seed) for seed in (50, 51, 52)])
    assert not codec.training
    assert again.fingerprint == codec.fingerprint
    assert torch.equal(again.encode(waveforms), codec.encode(waveforms))
    rows = measure_codec(again, list(waveforms))
    assert [row["levels"] for row in rows] == [1, 2, 3]
    assert [row["bitrate_kbps"] for row in rows] == pytest.approx([3.2, 6.4, 9.6])
    distances = [row["mel_distance"] for row in rows]
    assert distances == sorted(distances, reverse=True)
    assert rows[-1]["mel_distance"] < rows[0]["mel_distance"] - 0.02
    assert all(4 <= row["perplexity"] <= 16 for row in rows)
    assert all(row["perplexity"] / 16 <= row["used_share"] <= 1 for row in rows)


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
        NeuralCodecTrainConfig(loop=LoopConfig(steps=100), batch_size=0)
    with pytest.raises(ConfigError, match="quantizer starts at step 50"):
        NeuralCodecTrainConfig(loop=LoopConfig(steps=50))
    with pytest.raises(ConfigError, match="kmeans_crops = 0"):
        NeuralCodecTrainConfig(loop=LoopConfig(steps=100), kmeans_crops=0)
    with pytest.raises(ConfigError, match="no waveforms to measure"):
        measure_codec(NeuralCodecStage(recordings(), config()).network.codec, [])
    train_neural_codec(recordings(), config(steps=1), tmp_path)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train_neural_codec(recordings(), config(None, steps=1), tmp_path)
