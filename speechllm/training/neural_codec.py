"""Train a SoundStream codec: spectral losses, discriminators, balanced gradients.

    config = NeuralCodecTrainConfig(loop=LoopConfig(steps=300_000))
    codec, report = train_neural_codec(recordings, config, "runs/codec")     # runs/codec is the codec, /run its run

    waveforms --encoder, quantizer, decoder--> output --> L1, log-mel distances --------------------+
                                                 |                                                  | balanced at
                                                 +--> discriminators --> hinge loss, features ------+ the output
                                      commitment --------------------------------------------------+  plain

It starts as an autoencoder without quantizer; then k-means fits the codebooks to what the encoder makes.
One step updates both sides: the codec's loss sees the discriminators as they stand, theirs sees the output as it
stands, and the two sets of weights share nothing but the step, so that one optimizer is as good as two. The loop's
checkpoint has the discriminators, the codebooks' averages and the balancer's too: resuming is exact.
(SoundStream, arXiv:2107.03312, section III; EnCodec, arXiv:2210.13438, section 3.4; AudioGen, arXiv:2209.15352, 3.1.)
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.audio import num_frames, seconds_to_samples
from speechllm.errors import CheckpointError, ConfigError
from speechllm.nn.stft_discriminator import STFTDiscriminator, STFTDiscriminatorConfig
from speechllm.tokenizers.codec import Codec
from speechllm.tokenizers.soundstream import Reconstruction, SoundStreamCodec, SoundStreamConfig
from speechllm.training.balancer import Balancer
from speechllm.training.codec_losses import (
    MultiScaleMelLoss,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    si_snr,
)
from speechllm.training.loop import LoopConfig, LoopReport, save_once, train_stage
from speechllm.training.recordings import Recordings

KMEANS_DRAW = 1
"Sets the crops for k-means apart from the batches."


@dataclass(frozen=True, kw_only=True)
class CodecLossConfig:
    """Shares of the output's gradient (EnCodec's, section 3.4), and the weight of the commitment."""

    waveform: float = 0.1
    "L1 distance of the samples."
    mel: float = 1.0
    "Distance of log-mel spectrograms in seven resolutions."
    adversarial: float = 3.0
    "Hinge loss; left out without a discriminator."
    features: float = 3.0
    "Distance of the discriminators' features; left out without a discriminator."
    commitment: float = 1.0
    "Weight of the encoder's distance to its codebooks, which is not balanced."
    adversarial_from_step: int = 0
    """Until this step (batch, with several processes) the codec learns from the other losses alone, while the
    discriminators learn already: early on they know nothing, but have most of the gradient."""
    decay: float = 0.999
    "Of the running means of gradient lengths."


@dataclass(frozen=True, kw_only=True)
class NeuralCodecTrainConfig:
    """The codec, what it is trained on, and how long."""

    loop: LoopConfig
    "Steps, rates, seed. The papers take betas of (0.5, 0.9) and do not clip (clip_norm: 0)."
    codec: SoundStreamConfig = field(default_factory=SoundStreamConfig)
    "Sizes of the codec."
    start_from: str | None = None
    "Folder of a codec of these sizes whose weights and codebooks this one begins with; None: random weights, k-means."
    discriminator: STFTDiscriminatorConfig | None = field(default_factory=STFTDiscriminatorConfig)
    "None: spectral losses alone; faster, and duller to the ear."
    losses: CodecLossConfig = field(default_factory=CodecLossConfig)
    "Their weights."
    batch_size: int = 32
    "Crops in a batch."
    crop_seconds: float = 1.0
    "Length of a crop, up to the next whole frame."
    quantize_from_step: int = 50
    """Until this step (batch, with several processes) nothing is quantised: a random encoder's frames are so much alike
    that most codes would never be chosen again."""
    kmeans_crops: int = 128
    "Crops that the codebooks are then fitted to: k-means wants several times as many frames as codes."

    def __post_init__(self) -> None:
        if self.quantize_from_step < 0 or self.kmeans_crops < 1:
            raise ConfigError(
                f"quantize_from_step = {self.quantize_from_step}, kmeans_crops = {self.kmeans_crops}: expected at "
                "least 0 and at least 1"
            )
        if self.loop.steps <= self.quantize_from_step:
            raise ConfigError(
                f"loop.steps = {self.loop.steps}, but the quantizer starts at step {self.quantize_from_step}; "
                "train longer or lower quantize_from_step"
            )
        if self.batch_size < 1 or not self.crop_seconds > 0:
            raise ConfigError(
                f"batch_size = {self.batch_size}, crop_seconds = {self.crop_seconds}: expected at least 1 and above 0"
            )


class CodecAndCritics(nn.Module):
    """All that is trained, in one module: its forward returns the loss of both sides."""

    def __init__(self, config: NeuralCodecTrainConfig):
        super().__init__()
        self.config = config
        self.codec = SoundStreamCodec(config.codec)
        self.discriminator = STFTDiscriminator(config.discriminator) if config.discriminator else None
        self.mel = MultiScaleMelLoss(config.codec.sample_rate)
        names = ["waveform", "mel"] + (["adversarial", "features"] if config.discriminator else [])
        weights = {name: getattr(config.losses, name) for name in names}
        self.balancer = Balancer(weights, decay=config.losses.decay)

    def forward(self, waveforms: Float[Tensor, "B S"], step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to be minimised in this step and its parts."""
        made: Reconstruction = self.codec(waveforms, bool(self.codec.quantizer.is_fitted))
        # The discriminators hear a copy, once for both sides: their own loss must not reach the codec.
        copy = made.waveforms.detach().requires_grad_(made.waveforms.requires_grad)
        losses = {"waveform": (copy - waveforms).abs().mean(), "mel": self.mel(copy, waveforms)}
        critics = waveforms.new_zeros(())
        if self.discriminator is not None:
            real, fake = self.discriminator(waveforms), self.discriminator(copy)
            if step >= self.config.losses.adversarial_from_step:
                losses["adversarial"], losses["features"] = adversarial_loss(fake), feature_loss(real, fake)
            critics = discriminator_loss(real, fake)
        balanced = self.balancer(losses, made.waveforms, copy)
        loss = balanced + self.config.losses.commitment * made.commitment + critics
        return loss, losses | {"commitment": made.commitment, "discriminator": critics}


class NeuralCodecStage:
    """The stage for `train_stage`: batch i is a function of (seed, i)."""

    def __init__(self, recordings: Recordings, config: NeuralCodecTrainConfig):
        if recordings.sample_rate != config.codec.sample_rate:
            raise ConfigError(
                f"the recordings are at {recordings.sample_rate} Hz, the codec takes {config.codec.sample_rate} Hz; "
                "load them at the codec's rate"
            )
        torch.manual_seed(config.loop.seed)
        self.network = CodecAndCritics(config)
        if config.start_from is not None:
            _copy_codec(config.start_from, self.network.codec)
        self.model: nn.Module = self.network
        self.config, self._recordings = config, recordings
        hop = config.codec.seanet.samples_per_frame
        self._crop = num_frames(seconds_to_samples(config.crop_seconds, config.codec.sample_rate), hop) * hop

    def batch(self, step: int) -> dict[str, Any]:
        """Return crops from anywhere in the recordings."""
        return {"waveforms": self._crops((self.config.loop.seed, step), self.config.batch_size), "step": step}

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of codec and discriminators, and its parts."""
        if batch["step"] >= self.config.quantize_from_step and not bool(self.network.codec.quantizer.is_fitted):
            self._fit_codebooks()
        loss, parts = self.model(batch["waveforms"], batch["step"])
        return loss, {name: part.item() for name, part in parts.items()}

    @torch.no_grad()
    def _fit_codebooks(self) -> None:
        """Start the quantizer; the same crops in every process, so that all have the same codebooks."""
        codec = self.network.codec
        crops = self._crops((self.config.loop.seed, KMEANS_DRAW, 0), self.config.kmeans_crops)
        torch.manual_seed(self.config.loop.seed)
        parts = crops.to(codec.quantizer.sums.device).split(self.config.batch_size)
        codec.quantizer.fit(torch.cat([codec.encoder(part[:, None]) for part in parts]))

    def _crops(self, seed: tuple[int, ...], count: int) -> Float[Tensor, "B S"]:
        """Return crops from anywhere in the recordings, a function of the seed."""
        positions = np.random.default_rng(seed).integers(self._recordings.num_positions, size=count)
        return torch.stack([self._recordings.crop(int(place), self._crop) for place in positions])


def train_neural_codec(
    recordings: Recordings, config: NeuralCodecTrainConfig, out: str | Path
) -> tuple[SoundStreamCodec, LoopReport]:
    """Train a codec, going on where a killed run stopped, and save it in `out`; checkpoints go to `out`/run.

    Raises:
        ConfigError: the recordings are at another rate.
        CheckpointError: `out`/run holds a run with another config or model, or `start_from` a codec of other sizes.
        TrainingError: loss or gradient is not finite.
    """
    stage = NeuralCodecStage(recordings, config)
    report = train_stage(stage, config.loop, Path(out) / "run")
    codec = stage.network.codec.eval()
    save_once(lambda: codec.save_pretrained(out))
    return codec, report


def _copy_codec(folder: str, codec: SoundStreamCodec) -> None:
    """Give `codec` the weights and codebooks of the codec in `folder`."""
    found = SoundStreamCodec.from_pretrained(folder)
    if _sizes(found.config) != _sizes(codec.config):
        raise CheckpointError(
            f"start_from = {folder} holds a codec of other sizes than train.codec; copy its config.json's sizes, "
            "or leave start_from out"
        )
    codec.load_state_dict(found.state_dict())


def _sizes(config: SoundStreamConfig) -> tuple[Any, ...]:
    """Return what must agree: how the codebooks learn may differ."""
    return config.sample_rate, config.seanet, config.quantizer.num_codebooks, config.quantizer.codebook_size


@torch.no_grad()
def measure_codec(codec: Codec, waveforms: list[Float[Tensor, " _"]]) -> list[dict[str, Any]]:
    """Return one row for 1, 2, 4, ... and all levels of any codec: bitrate, mel distance, SI-SNR, use of the codes.

    Distances are means over the waveforms. `perplexity` is the effective number of codes of the row's last level, at
    most codebook_size, and `used_share` the share of its codes that occur: both mean nothing for few frames.
    """
    if not waveforms:
        raise ConfigError("there are no waveforms to measure; hold some recordings out")
    mel = MultiScaleMelLoss(codec.sample_rate)
    K = codec.num_codebooks
    rows = []
    encoded = [codec.encode(waveform[None]) for waveform in waveforms]
    for levels in sorted({2**i for i in range(K.bit_length()) if 2**i <= K} | {K}):
        made = [codec.decode(codes[:, :levels])[:, : len(w)] for codes, w in zip(encoded, waveforms, strict=True)]
        pairs = list(zip(made, (waveform[None] for waveform in waveforms), strict=True))
        used = torch.cat([codes[0, levels - 1] for codes in encoded])
        counts = torch.bincount(used, minlength=codec.codebook_size)
        rows.append(
            {
                "levels": levels,
                "bitrate_kbps": codec.bitrate_kbps * levels / K,
                "mel_distance": float(np.mean([float(mel(ours, theirs)) for ours, theirs in pairs])),
                "si_snr_db": float(np.mean([float(si_snr(ours, theirs)) for ours, theirs in pairs])),
                "perplexity": _perplexity(counts),
                "used_share": float((counts > 0).float().mean()),
            }
        )
    return rows


def _perplexity(counts: Tensor) -> float:
    shares = counts[counts > 0] / counts.sum()
    return math.exp(float(-(shares * shares.log()).sum()))
