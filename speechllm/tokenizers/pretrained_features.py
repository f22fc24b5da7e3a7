"""Frames from a layer of any transformers speech encoder: Whisper, HuBERT, wav2vec 2, w2v-BERT, WavLM.

    config = TransformersFeaturesConfig(source="openai/whisper-base", frame_rate=12.5)
    features = TransformersFeatures.from_source(config)
    features(load_audio("greeting.flac", 16_000)).shape        # (16, 512): 50 Hz averaged by fours

These encoders run at 50 Hz. Audio is padded by less than one frame of silence and by nothing else: Whisper's
spectrogram is cut to the utterance and its positions with it, ten times cheaper than its 30 s window. Whisper,
HuBERT and wav2vec 2 base do not mask padding well, so each utterance is encoded alone; then no other one matters.
AudioPaLM took a layer of w2v-BERT or USM (arXiv:2306.12925, section 3.1), AudioLM layer 7 (arXiv:2209.03143).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.audio import Audio
from speechllm.config import build_config
from speechllm.errors import CheckpointError, ConfigError
from speechllm.tokenizers.features import (
    encode_in_chunks,
    hash_features,
    read_features_spec,
    samples_per_frame,
    write_features_spec,
)

FAMILIES = ("whisper", "hubert", "wav2vec2", "wav2vec2-bert", "wavlm")


@dataclass(frozen=True, kw_only=True)
class TransformersFeaturesConfig:
    """Which encoder, which layer, which rate."""

    source: str
    "A folder or Hub id of a model of one of the families. Only read when the features are made the first time."
    layer: int | None = None
    "Hidden state taken: 0 is the input of the first layer, n the output of the n-th; None: the encoder's output."
    frame_rate: float = 25.0
    "Frames per second; the encoder's 50 Hz are averaged."
    chunk_seconds: float = 30.0
    "Longest stretch that is encoded at once; Whisper takes at most 30."


class TransformersFeatures:
    """A frozen speech encoder as a feature extractor."""

    def __init__(self, encoder: Any, processor: Any, config: TransformersFeaturesConfig):
        self.config, self._encoder, self._processor = config, encoder.float().eval(), processor
        self._family: str = self._encoder.config.model_type
        if self._family not in FAMILIES:
            raise ConfigError(f"{config.source} is of type {self._family!r}, expected one of {', '.join(FAMILIES)}")
        self._native_hop, self._overlap = _framing(self._encoder.config, processor)
        self._hop = samples_per_frame(self.sample_rate, config.frame_rate)
        if self._hop % self._native_hop:
            native = self.sample_rate / self._native_hop
            raise ConfigError(f"frame_rate = {config.frame_rate} Hz is no whole part of the encoder's {native} Hz")
        num_layers = int(self._encoder.config.num_hidden_layers)
        if config.layer is not None and not 0 <= config.layer <= num_layers:
            raise ConfigError(f"layer = {config.layer}, expected 0 to {num_layers} for {config.source}")
        if self._family == "whisper":
            longest = int(self._encoder.config.max_source_positions) * self._native_hop / self.sample_rate
            if config.chunk_seconds > longest:
                raise ConfigError(f"chunk_seconds = {config.chunk_seconds}, expected at most {longest:g} for Whisper")
        self._fingerprint: str | None = None

    @classmethod
    def from_source(cls, config: TransformersFeaturesConfig) -> Self:
        """Load the encoder that `config.source` names.

        Who names a model trusts its maker: some (facebook/hubert-base-ls960) have pickled weights only, which torch
        then reads with `weights_only`. `from_pretrained` never does: its folders come in checkpoints of anybody.

        Raises:
            CheckpointError: there is no such model.
        """
        return cls(*_load(config.source, use_safetensors=None), config)

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio it takes."""
        return int(self._processor.sampling_rate)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    @property
    def fingerprint(self) -> str:
        """sha256 over config and weights."""
        if self._fingerprint is None:
            self._fingerprint = hash_features("transformers", self.config, self._encoder.state_dict())
        return self._fingerprint

    def __call__(self, audio: Audio) -> Float[Tensor, "T D"]:
        """Return frames of one layer, averaged to `frame_rate`."""
        return encode_in_chunks(audio, self.sample_rate, self._hop, self.config.chunk_seconds, self._encode)

    def _encode(self, samples: Float[Tensor, " S"]) -> Float[Tensor, "T D"]:
        left = self._overlap // 2
        padded = nn.functional.pad(samples, (left, self._overlap - left))
        # Only Whisper's extractor pads by itself (to 30 s), only w2v-BERT's must (to pairs of frames: we give pairs).
        inputs = self._processor(
            padded.numpy(), sampling_rate=self.sample_rate, return_tensors="pt", padding=False, truncation=False
        )
        name = next(name for name in ("input_features", "input_values") if name in inputs)
        values = inputs[name].float().to(next(self._encoder.parameters()).device)
        hidden = _whisper_layer(self._encoder, values, self.config.layer) if self._family == "whisper" else None
        if hidden is None:
            output = self._encoder(values, output_hidden_states=self.config.layer is not None)
            hidden = output.last_hidden_state if self.config.layer is None else output.hidden_states[self.config.layer]
        return reduce(hidden[0], "(t pool) d -> t d", "mean", pool=self._hop // self._native_hop)

    def to(self, device: str | torch.device) -> Self:
        """Move the encoder to a device."""
        self._encoder.to(device=device)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write features.json beside the encoder and its extractor in transformers' own format."""
        self._encoder.save_pretrained(folder)
        self._processor.save_pretrained(folder)
        write_features_spec(folder, "transformers", self.config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what `save_pretrained` wrote; `config.source` is not needed any more.

        Raises:
            CheckpointError: a file is missing, or the weights are not safetensors.
        """
        config = build_config(TransformersFeaturesConfig, read_features_spec(folder)["config"], where=str(folder))
        return cls(*_load(str(folder), use_safetensors=True), config)


def _load(source: str, *, use_safetensors: bool | None) -> tuple[Any, Any]:
    """Return the encoder (of Whisper, without its decoder) and the extractor of its inputs.

    `use_safetensors` is transformers' own: None takes them where there are any.
    """
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type == "whisper":
            encoder = _whisper_encoder(source, WhisperEncoder, use_safetensors)
        else:
            encoder = AutoModel.from_pretrained(source, use_safetensors=use_safetensors)
        return encoder, AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot load a speech encoder from {source!r}: {reason}") from error


def _whisper_encoder(source: str, encoder_class: Any, use_safetensors: bool | None) -> nn.Module:
    from transformers import WhisperModel

    # A folder of ours holds the encoder alone, a folder of theirs the encoder in a larger model.
    if (Path(source) / "features.json").exists():
        return encoder_class.from_pretrained(source, use_safetensors=use_safetensors)
    return WhisperModel.from_pretrained(source, use_safetensors=use_safetensors).encoder


def _framing(config: Any, processor: Any) -> tuple[int, int]:
    """Return the encoder's hop in samples and by how many samples its first window reaches beyond one hop."""
    if config.model_type == "whisper":
        return 2 * int(processor.hop_length), 0
    if config.model_type == "wav2vec2-bert":
        window, hop = 400, 160  # of the Kaldi filter bank in SeamlessM4TFeatureExtractor
        return hop * int(processor.stride), window - hop
    field = hop = 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field, hop = field + (kernel - 1) * hop, hop * stride
    assert hop == math.prod(config.conv_stride), "strides multiply"
    return hop, field - hop


def _whisper_layer(encoder: Any, mel: Float[Tensor, "1 M T"], layer: int | None) -> Float[Tensor, "1 T2 D"]:
    """Run Whisper's encoder on as many frames as there are; its own forward insists on 30 s."""
    hidden = nn.functional.gelu(encoder.conv1(mel))
    hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for block in encoder.layers[:layer]:
        output = block(hidden, None)
        hidden = output[0] if isinstance(output, tuple) else output
    return encoder.layer_norm(hidden) if layer is None else hidden
