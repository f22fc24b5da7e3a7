"""Small speech encoder trained to write characters, so that k-means on it hears words and not voices.

    encoder = CTCEncoder(CTCEncoderConfig(symbols=" abc..."))
    output = encoder(mel, lengths)                 # mel [B, M, T] at 100 Hz
    output.states[-1].shape                        # (B, T / 8, D) at 12.5 Hz
    output.log_probs.shape                         # (B, T / 8 * emissions_per_frame, 1 + symbols)
    features = CTCFeatures(encoder, CTCFeaturesConfig(layers=(2, 3)))

The idea of USM-v2 in AudioPaLM (arXiv:2306.12925, section 3.1: a tokenizer from an encoder with an auxiliary
ASR loss), in miniature. CTC (Graves et al., ICML 2006) wants at least one frame per character, and speech has
more than 12.5 characters a second: each frame therefore emits several symbols in a row.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.audio import Audio
from speechllm.config import build_config, config_to_dict
from speechllm.errors import ConfigError
from speechllm.nn.conformer import Conformer, ConformerConfig, length_mask
from speechllm.nn.pretrained import read_folder, write_folder
from speechllm.nn.rotary import rotary_angles
from speechllm.tokenizers.features import (
    encode_in_chunks,
    hash_features,
    read_features_spec,
    samples_per_frame,
    write_features_spec,
)
from speechllm.tokenizers.mel import LogMel, LogMelConfig

BLANK = 0
"Index of CTC's blank; symbol i of the config has index i + 1."
KIND = "ctc-encoder"


@dataclass(frozen=True, kw_only=True)
class CTCEncoderConfig:
    """Sizes of the encoder and the characters it writes."""

    symbols: str
    "The characters of the transcripts, each once, in a fixed order."
    frame_rate: float = 12.5
    "Frames per second of the trunk: 12.5 or 25."
    emissions_per_frame: int = 3
    "Symbols (or blanks) that each frame emits in a row."
    num_mels: int = 80
    "Mel bands M of the input."
    stem_width: int = 128
    "Channels between the spectrogram and the trunk."
    trunk: ConformerConfig = field(default_factory=ConformerConfig)
    "The Conformer."

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(self.symbols) or not self.symbols:
            raise ConfigError(f"symbols = {self.symbols!r}, expected at least one character and each only once")
        if self.frame_rate not in (12.5, 25.0):
            raise ConfigError(f"frame_rate = {self.frame_rate}, expected 12.5 or 25")


@dataclass(frozen=True)
class CTCOutput:
    """What the encoder gives for a batch; rows beyond an item's length mean nothing."""

    states: tuple[Float[Tensor, "B T D"], ...]
    "Input of the first layer, then the output of each layer."
    log_probs: Float[Tensor, "B E V"]
    "Log probabilities of blank and symbols, E = T * emissions_per_frame."
    lengths: Int[Tensor, " B"]
    "Frames of each item."


class CTCEncoder(nn.Module):
    """Log-mel frames in, states at the frame rate and CTC log probabilities out. Padding changes nothing."""

    def __init__(self, config: CTCEncoderConfig):
        super().__init__()
        self.config = config
        self.mel_config = LogMelConfig(num_mels=config.num_mels)
        self.pooling = round(self.mel_config.frame_rate / config.frame_rate)
        width = config.trunk.width
        self.first = _Halving(config.num_mels, config.stem_width, 2)
        self.second = _Halving(config.stem_width, width, self.pooling // 2)
        self.trunk = Conformer(config.trunk)
        self.head = nn.Linear(width, config.emissions_per_frame * (1 + len(config.symbols)))

    def forward(self, mel: Float[Tensor, "B M T"], lengths: Int[Tensor, " B"]) -> CTCOutput:
        """Encode `lengths[b]` frames of each log-mel spectrogram; T must be a multiple of the pooling (8 or 4)."""
        mask = length_mask(lengths, mel.shape[2])
        frames = _center(mel.transpose(1, 2), mask)
        x = nn.functional.gelu(self.first(frames)) * mask[:, ::2, None]
        x = self.second(x)
        lengths = torch.div(lengths + self.pooling - 1, self.pooling, rounding_mode="floor")
        mask = length_mask(lengths, x.shape[1])
        states = [x]
        rotary = rotary_angles(x.shape[1], x.shape[2] // self.config.trunk.num_heads, device=x.device)
        for layer in self.trunk.layers:
            states.append(layer(states[-1], mask, rotary))
        logits = rearrange(
            self.head(self.trunk.norm(states[-1])), "b t (e v) -> b (t e) v", e=self.config.emissions_per_frame
        )
        return CTCOutput(tuple(states), logits.float().log_softmax(-1), lengths)

    def indices(self, text: str) -> list[int]:
        """Return the index of each character; those that are no symbol are left out."""
        return [self.config.symbols.index(c) + 1 for c in text if c in self.config.symbols]

    def greedy_text(self, log_probs: Float[Tensor, "E V"]) -> str:
        """Return the text of the likeliest path: repeats merged, blanks dropped."""
        path = torch.unique_consecutive(log_probs.argmax(-1)).tolist()
        return "".join(self.config.symbols[index - 1] for index in path if index != BLANK).strip()


class _Halving(nn.Module):
    """Convolution with a stride and a kernel of twice the stride, as a matrix (which Muon can step)."""

    def __init__(self, width_in: int, width_out: int, stride: int):
        super().__init__()
        self.stride = stride
        self.project = nn.Linear(2 * stride * width_in, width_out)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T2 D"]:
        """Return T / stride frames; what lies beyond the ends counts as zero."""
        left = self.stride // 2
        padded = nn.functional.pad(x, (0, 0, left, self.stride - left))
        windows = padded.unfold(1, 2 * self.stride, self.stride)
        return self.project(windows.flatten(2))


def _center(frames: Float[Tensor, "B T M"], mask: Tensor) -> Float[Tensor, "B T M"]:
    """Shift each item's bands to mean 0 over its frames, which takes out gain and colour; padding becomes 0."""
    weights = mask[:, :, None].float()
    mean = (frames * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1)
    # Log-mel magnitudes of speech have a deviation of 2 to 3.
    return (frames - mean) * weights * 0.4


@dataclass(frozen=True, kw_only=True)
class CTCFeaturesConfig:
    """Which layers the features come from."""

    layers: tuple[int, ...] = ()
    """0 is the input of the first layer, n the output of the n-th; none: the last. The states of several stand side by
    side: lower layers hold more of the sound, higher ones more of the words."""
    chunk_seconds: float = 30.0
    "Longest stretch that is encoded at once."


class CTCFeatures:
    """States of a trained CTC encoder as features [T, D]; D is its width times the number of layers."""

    def __init__(self, encoder: CTCEncoder, config: CTCFeaturesConfig | None = None):
        self.encoder, self.config = encoder.float().eval(), config or CTCFeaturesConfig()
        num_layers = encoder.config.trunk.num_layers
        self._layers = self.config.layers or (num_layers,)
        if not 0 <= min(self._layers) <= max(self._layers) <= num_layers:
            raise ConfigError(f"layers = {list(self.config.layers)}, expected numbers from 0 to {num_layers}")
        self._mel = LogMel(encoder.mel_config)
        self._hop = samples_per_frame(self.sample_rate, self.frame_rate)
        self._fingerprint: str | None = None

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio it takes."""
        return self.encoder.mel_config.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.encoder.config.frame_rate

    @property
    def fingerprint(self) -> str:
        """sha256 over configs and weights."""
        if self._fingerprint is None:
            spec = {"features": config_to_dict(self.config), "encoder": config_to_dict(self.encoder.config)}
            self._fingerprint = hash_features("ctc", spec, self.encoder.state_dict())
        return self._fingerprint

    def __call__(self, audio: Audio) -> Float[Tensor, "T D"]:
        """Return the states of the chosen layers."""
        return encode_in_chunks(audio, self.sample_rate, self._hop, self.config.chunk_seconds, self._encode)

    def transcribe(self, audio: Audio) -> str:
        """Return what the CTC head writes, greedily: how much of the words the encoder hears."""
        return " ".join(self.encoder.greedy_text(log_probs) for log_probs in self._emissions(audio))

    def log_probs(self, audio: Audio) -> Float[Tensor, "E V"]:
        """Return the logarithm of each symbol's probability at each emission, the blank's first."""
        return torch.cat(self._emissions(audio))

    def _emissions(self, audio: Audio) -> list[Float[Tensor, "E V"]]:
        """Return what the CTC head says of each chunk."""
        found: list[Tensor] = []

        def collect(samples: Float[Tensor, " S"]) -> Float[Tensor, "T D"]:
            output = self._run(samples)
            found.append(output.log_probs[0])
            return output.states[-1][0]

        audio, seconds = audio.resampled(self.sample_rate), self.config.chunk_seconds
        encode_in_chunks(audio, self.sample_rate, self._hop, seconds, collect)
        return found

    def _encode(self, samples: Float[Tensor, " S"]) -> Float[Tensor, "T D"]:
        states = self._run(samples).states
        return torch.cat([states[layer][0] for layer in self._layers], dim=1)

    def _run(self, samples: Float[Tensor, " S"]) -> CTCOutput:
        mel = self._mel(samples[None]).to(self.encoder.head.weight.device)
        return self.encoder(mel, torch.tensor([mel.shape[2]], device=mel.device))

    def to(self, device: str | torch.device) -> Self:
        """Move the encoder to a device."""
        self.encoder.to(device)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors (the encoder) and features.json."""
        save_ctc_encoder(self.encoder, folder)
        write_features_spec(folder, "ctc", self.config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what `save_pretrained` wrote."""
        config = build_config(CTCFeaturesConfig, read_features_spec(folder)["config"], where=str(folder))
        return cls(load_ctc_encoder(folder), config)


def save_ctc_encoder(encoder: CTCEncoder, folder: str | Path) -> None:
    """Write config.json and model.safetensors."""
    write_folder(folder, {"kind": KIND, **config_to_dict(encoder.config)}, encoder.state_dict())


def load_ctc_encoder(folder: str | Path) -> CTCEncoder:
    """Load what `save_ctc_encoder` wrote."""
    config, tensors = read_folder(folder, KIND)
    config.pop("kind")
    encoder = CTCEncoder(build_config(CTCEncoderConfig, config, where=str(folder)))
    encoder.load_state_dict(tensors)
    return encoder.eval()
