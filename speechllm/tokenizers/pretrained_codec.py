"""EnCodec, DAC, Mimi and X-Codec of transformers as codecs of ours.

    codec = PretrainedCodec.from_hub("facebook/encodec_24khz", bandwidth_kbps=6.0)      # the first 8 of 32 levels
    codec = PretrainedCodec.from_hub("kyutai/mimi", num_codebooks=8)                    # 1 semantic level, 7 acoustic
    codec.save_pretrained("codec"); load_codec("codec")                                 # needs the Hub no more

    model     paper              24 kHz codes    levels     silence on the right     streams
    encodec   arXiv:2210.13438   75 Hz           32         only appends codes       no
    dac       arXiv:2306.06546   75 Hz           32         changes the last codes   no
    mimi      arXiv:2410.00037   12.5 Hz         32         only appends codes       yes
    xcodec    arXiv:2408.17175   50 Hz, 16 kHz   8          may change any code      no

Rows of a batch are encoded one by one, so a row's codes never depend on the other rows. Where silence changes
codes (`is_causal` is False), give waveforms of equal length or one at a time. "Only appends" is exact but for a code
that float32 decides by its last bit, and for EnCodec, which mirrors the start of the audio into its past, from 7
frames (0.1 s) on. Codecs that normalise loudness, cut audio into chunks or take stereo (EnCodec
at 48 kHz) are refused: their codes alone do not give the waveform back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.config import build_config, config_to_dict
from speechllm.errors import CheckpointError, ConfigError
from speechllm.nn.pretrained import fingerprint, read_folder, write_folder
from speechllm.tokenizers.codec import bitrate_kbps, check_codes, check_waveforms, pad_to_frames
from speechllm.tokenizers.streaming import MimiDecoderStep, MimiEncoderStep, StreamingDecoder, StreamingEncoder

KIND = "transformers"
VOLATILE_KEYS = ("_name_or_path", "transformers_version", "dtype", "architectures")
"Keys of a transformers config that say where a model came from, not what it computes."


@dataclass(frozen=True, kw_only=True)
class PretrainedCodecConfig:
    """What is chosen beside the model itself."""

    num_codebooks: int
    "Levels K in use: the first of those that the model has."


@dataclass(frozen=True)
class Family:
    """What differs between the models: how to ask one, and what it promises."""

    class_name: str
    "Class in transformers."
    samples_per_frame: Callable[[Any], int]
    "From the model's config."
    num_levels: Callable[[Any], int]
    "Levels that the model has, from its config."
    encode: Callable[[Any, Tensor, int], Tensor]
    "Model, waveforms [B, 1, S] of whole frames and K to codes [B, K, T]."
    decode: Callable[[Any, Tensor], Tensor]
    "Model and codes [B, K, T] to waveforms [B, 1, S]; S may be some samples short."
    vectors: Callable[[Any], list[Tensor]]
    "The vectors [N, D] of every level, those that the model adds up."
    is_causal: Callable[[Any], bool]
    "From the model's config: whether silence on the right only appends codes."
    streams: bool = False
    "Whether transformers has what streaming needs."


class PretrainedCodec(nn.Module):
    """Follows `Codec`. Frozen: it stays in eval mode and has no gradients."""

    def __init__(self, model: nn.Module, config: PretrainedCodecConfig, model_config: dict[str, Any] | None = None):
        super().__init__()
        self.config = config
        self.model: Any = model.float().eval().requires_grad_(False)
        self.family = family_of(self.model.config)
        # Kept as it was saved: a later transformers may add keys, and the fingerprint must not follow.
        self.model_config = model_config or plain_config(self.model.config)
        levels = self.family.num_levels(self.model.config)
        if not 1 <= config.num_codebooks <= levels:
            raise ConfigError(f"num_codebooks = {config.num_codebooks}, expected 1 to the model's {levels} levels")

    @classmethod
    def from_hub(
        cls,
        source: str | Path,
        *,
        num_codebooks: int | None = None,
        bandwidth_kbps: float | None = None,
        revision: str = "main",
    ) -> Self:
        """Load a model of transformers from a Hub id or folder, safetensors only.

        Args:
            source: such as facebook/encodec_24khz, descript/dac_16khz, kyutai/mimi, hf-audio/xcodec-hubert-librispeech.
            num_codebooks: levels K to use; None: all, or what `bandwidth_kbps` says.
            bandwidth_kbps: use as many levels as fit into this bitrate.
            revision: branch, tag or commit on the Hub.

        Raises:
            CheckpointError: nothing there, or not as safetensors.
            ConfigError: another type of model, or levels it does not have.
        """
        from transformers import AutoConfig

        if num_codebooks is not None and bandwidth_kbps is not None:
            raise ConfigError("num_codebooks and bandwidth_kbps are both given; give one")
        try:
            model_config = AutoConfig.from_pretrained(source, revision=revision)
        except (OSError, ValueError) as error:
            raise _not_loaded(source, error) from error
        family = family_of(model_config)
        if bandwidth_kbps is not None:
            level_kbps = bitrate_kbps(_frame_rate(family, model_config), 1, model_config.codebook_size)
            # A whole number of levels must not be lost to rounding: 6.0 / 0.75 may come out below 8.
            num_codebooks = math.floor(bandwidth_kbps / level_kbps + 1e-6)
        model = _load_model(family, source, source=str(source), config=model_config, revision=revision)
        levels = family.num_levels(model_config) if num_codebooks is None else num_codebooks
        return cls(model, PretrainedCodecConfig(num_codebooks=levels))

    @property
    def sample_rate(self) -> int:
        """Samples a second, Hz."""
        return _sample_rate(self.model.config)

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of K codes stands for."""
        return self.family.samples_per_frame(self.model.config)

    @property
    def frame_rate(self) -> float:
        """Frames of K codes a second."""
        return _frame_rate(self.family, self.model.config)

    @property
    def num_codebooks(self) -> int:
        """Levels K in use."""
        return self.config.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Codes N of one level."""
        return int(self.model.config.codebook_size)

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits a second of the levels in use."""
        return bitrate_kbps(self.frame_rate, self.num_codebooks, self.codebook_size)

    @property
    def is_causal(self) -> bool:
        """Whether silence on the right only appends codes."""
        return self.family.is_causal(self.model.config)

    @property
    def streams(self) -> bool:
        """Whether it works on audio in pieces (Mimi)."""
        return self.family.streams

    @property
    def fingerprint(self) -> str:
        """Hash of config and weights."""
        return fingerprint(self._saved_config(), self.model.state_dict())

    @torch.no_grad()
    def encode(self, waveforms: Float[Tensor, "B S"]) -> Int[Tensor, "B K T"]:
        """Return codes, T = ceil(S / samples_per_frame): silence fills the last frame.

        Raises:
            AudioError: no samples, or samples that are not finite.
        """
        check_waveforms(waveforms)
        padded = pad_to_frames(waveforms.to(self.model.device), self.samples_per_frame)[:, None]
        rows = [self.family.encode(self.model, padded[i : i + 1], self.num_codebooks) for i in range(len(padded))]
        return torch.cat(rows)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B S"]:
        """Return waveforms of T * samples_per_frame samples from the first levels of `codes`.

        Raises:
            VocabularyError: more levels than the codec has, or a code outside its codebook.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        codes = codes.to(self.model.device)
        S = codes.shape[2] * self.samples_per_frame
        if S == 0:
            return torch.zeros(len(codes), 0, device=codes.device)
        waveforms = self.family.decode(self.model, codes).reshape(len(codes), -1)[:, :S]
        # DAC with an odd stride ends a few samples early; the rest is silence.
        return nn.functional.pad(waveforms, (0, S - waveforms.shape[1])).clamp(-1, 1)

    def codebook_vectors(self) -> Float[Tensor, "K N D"]:
        """Return the vector of each code in the decoder's space: the model decodes the sum over the levels."""
        return torch.stack(self.family.vectors(self.model)[: self.num_codebooks])

    def streaming_encoder(self) -> StreamingEncoder:
        """Return an encoder for one batch of waveforms that arrive in pieces (Mimi)."""
        self._check_streams()
        step = MimiEncoderStep(self.model, self.num_codebooks)
        return StreamingEncoder(
            step,
            num_codebooks=self.num_codebooks,
            samples_per_frame=self.samples_per_frame,
            device=self.model.device,
        )

    def streaming_decoder(self) -> StreamingDecoder:
        """Return a decoder for one batch of codes that arrive in pieces (Mimi)."""
        self._check_streams()
        step = MimiDecoderStep(self.model)
        return StreamingDecoder(
            step, num_codebooks=self.num_codebooks, codebook_size=self.codebook_size, device=self.model.device
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        write_folder(folder, self._saved_config(), self.model.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote: codes are bit-equal."""
        from transformers import AutoConfig

        saved, tensors = read_folder(folder, KIND)
        config = build_config(PretrainedCodecConfig, saved.get("config", {}), where=str(folder))
        described = saved.get("model")
        if not isinstance(described, dict) or "model_type" not in described:
            raise CheckpointError(f"{folder} does not describe its model; give a folder that save_pretrained wrote")
        try:
            model_config = AutoConfig.for_model(**described)
        except (ValueError, TypeError) as error:
            raise _not_loaded(folder, error) from error
        model = _load_model(family_of(model_config), None, source=str(folder), config=model_config, state_dict=tensors)
        return cls(model, config, described)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: DAC drops levels at random in train mode."""
        del mode
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # Mimi keeps each codebook's quotient where `.to(device)` does not find it.
        for module in self.model.modules():
            if hasattr(module, "_embed"):
                module._embed = None
        return self

    def _check_streams(self) -> None:
        if not self.family.streams:
            raise ConfigError(f"{self.family.class_name} does not stream; encode whole waveforms, or use Mimi")

    def _saved_config(self) -> dict[str, Any]:
        return {"kind": KIND, "config": config_to_dict(self.config), "model": self.model_config}


def family_of(model_config: Any) -> Family:
    """Return how to use a model with this config.

    Raises:
        ConfigError: there is no codec of that type here, or its codes are not all that it decodes from.
    """
    kind = model_config.model_type
    if kind not in FAMILIES:
        raise ConfigError(f"a model of type {kind!r} is no codec known here; expected one of {', '.join(FAMILIES)}")
    channels = getattr(model_config, "audio_channels", 1)
    if channels != 1:
        raise ConfigError(f"the codec takes {channels} channels, expected mono; use facebook/encodec_24khz")
    if getattr(model_config, "normalize", False) or getattr(model_config, "chunk_length_s", None) is not None:
        raise ConfigError("the codec normalises or chunks its audio, expected neither; use facebook/encodec_24khz")
    return FAMILIES[kind]


def plain_config(model_config: Any) -> dict[str, Any]:
    """Return a transformers config as plain data, without what depends on where and when it was loaded."""
    plain = model_config.to_dict()

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in VOLATILE_KEYS}
        return [strip(item) for item in value] if isinstance(value, list | tuple) else value

    return strip(plain)


def _load_model(family: Family, name: str | Path | None, *, source: str, **options: Any) -> nn.Module:
    """Load by `from_pretrained`, or fail: weights that are missing would be random."""
    import transformers

    model_class = getattr(transformers, family.class_name)
    try:
        model, loaded = model_class.from_pretrained(
            name, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(source, error) from error
    wrong = sorted(loaded["missing_keys"]) + sorted(str(key) for key in loaded["mismatched_keys"])
    if wrong:
        raise CheckpointError(f"{source} lacks {len(wrong)} weights of {family.class_name}, the first is {wrong[0]}")
    return model


def _not_loaded(source: str | Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:300]
    return CheckpointError(f"cannot load a codec from {source}: {reason}; give a Hub id or a folder with safetensors")


def _sample_rate(model_config: Any) -> int:
    # X-Codec alone says sample_rate.
    return int(getattr(model_config, "sampling_rate", None) or model_config.sample_rate)


def _frame_rate(family: Family, model_config: Any) -> float:
    return _sample_rate(model_config) / family.samples_per_frame(model_config)


def _bandwidth(model: Any, num_codebooks: int) -> float:
    """Return a bandwidth that quantizers which count levels by bandwidth round down to `num_codebooks` levels."""
    return (num_codebooks + 0.5) * math.log2(model.config.codebook_size) * model.config.frame_rate / 1_000


def _encodec_encode(model: Any, waveforms: Tensor, num_codebooks: int) -> Tensor:
    # Its own `encode` offers the bandwidths of the paper alone; every number of levels is as good.
    kbps = _bandwidth(model, num_codebooks)
    return model.quantizer.encode(model.encoder(waveforms), kbps).transpose(0, 1)


def _encodec_decode(model: Any, codes: Tensor) -> Tensor:
    return model.decoder(model.quantizer.decode(codes.transpose(0, 1)))


def _encodec_vectors(model: Any) -> list[Tensor]:
    return [layer.codebook.embed for layer in model.quantizer.layers]


def _plain_decode(model: Any, codes: Tensor) -> Tensor:
    return model.decode(codes).audio_values


def _dac_encode(model: Any, waveforms: Tensor, num_codebooks: int) -> Tensor:
    return model.encode(waveforms, n_quantizers=num_codebooks).audio_codes


def _dac_decode(model: Any, codes: Tensor) -> Tensor:
    return model.decode(audio_codes=codes).audio_values


def _dac_vectors(model: Any) -> list[Tensor]:
    # Codes are looked up in 8 dimensions and then projected, level by level (section 3.2).
    return [level.out_proj(level.codebook.weight.T[None])[0].T for level in model.quantizer.quantizers]


def _mimi_encode(model: Any, waveforms: Tensor, num_codebooks: int) -> Tensor:
    asked = max(num_codebooks, model.config.num_semantic_quantizers)
    return model.encode(waveforms, num_quantizers=asked).audio_codes[:, :num_codebooks]


def _mimi_vectors(model: Any) -> list[Tensor]:
    parts = (model.quantizer.semantic_residual_vector_quantizer, model.quantizer.acoustic_residual_vector_quantizer)
    return [_projected(layer.codebook.embed, part.output_proj) for part in parts for layer in part.layers]


def _projected(vectors: Float[Tensor, "N D"], projection: Any) -> Float[Tensor, "N D2"]:
    return vectors if projection is None else projection(vectors.T[None])[0].T


def _xcodec_encode(model: Any, waveforms: Tensor, num_codebooks: int) -> Tensor:
    # The semantic half costs most; asking for all levels and cutting is as cheap as asking for K.
    return model.encode(waveforms).audio_codes[:, :num_codebooks]


def _xcodec_vectors(model: Any) -> list[Tensor]:
    return [quantizer.codebook.embed for quantizer in model.quantizer.quantizers]


def _hop_length(model_config: Any) -> int:
    return int(model_config.hop_length)


def _never(model_config: Any) -> bool:
    del model_config
    return False


FAMILIES: dict[str, Family] = {
    "encodec": Family(
        class_name="EncodecModel",
        samples_per_frame=_hop_length,
        num_levels=lambda config: int(config.num_quantizers),
        encode=_encodec_encode,
        decode=_encodec_decode,
        vectors=_encodec_vectors,
        is_causal=lambda config: bool(config.use_causal_conv) and config.norm_type == "weight_norm",
    ),
    "dac": Family(
        class_name="DacModel",
        samples_per_frame=_hop_length,
        num_levels=lambda config: int(config.n_codebooks),
        encode=_dac_encode,
        decode=_dac_decode,
        vectors=_dac_vectors,
        is_causal=_never,
    ),
    "mimi": Family(
        class_name="MimiModel",
        samples_per_frame=lambda config: int(config.frame_size),
        num_levels=lambda config: int(config.num_quantizers),
        encode=_mimi_encode,
        decode=_plain_decode,
        vectors=_mimi_vectors,
        is_causal=lambda config: bool(config.use_causal_conv),
        streams=True,
    ),
    "xcodec": Family(
        class_name="XcodecModel",
        samples_per_frame=_hop_length,
        num_levels=lambda config: int(config.num_quantizers),
        encode=_xcodec_encode,
        decode=_plain_decode,
        vectors=_xcodec_vectors,
        is_causal=_never,
    ),
}
"How to use a model, by its `model_type`."
