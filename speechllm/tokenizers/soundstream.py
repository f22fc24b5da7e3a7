"""A neural codec that we train: SEANet, residual vector quantisation, SEANet.

    codec = SoundStreamCodec(SoundStreamConfig())                # untrained; see training/neural_codec.py
    codes = codec.encode(waveforms)                              # [B, S] -> [B, 12, T], 50 frames a second, 6 kbit/s
    codec.decode(codes[:, :4])                                   # [B, 4, T] -> [B, T * 320], at 2 kbit/s

    name                     strides      levels x codes   frames/s   kbit/s    source
    SoundStream              2 4 5 8      12 x 1024        50         6         arXiv:2305.09636, section 4.1
    AudioGen, one stream     2 2 2 4      1 x 2048         500        5.5       arXiv:2209.15352, section 3.1
    AudioGen, two streams    2 2 4 4      2 x 1024         250        5
    AudioGen, four streams   2 4 4 4      4 x 512          125        4.5

All of them are configs of this class (AudioGen's has one dilation and two LSTM layers). It is causal: silence on
the right only appends codes, and it streams. Rows of a batch are encoded one by one, so that a row's codes never
depend on the others. SoundStream's denoising (FiLM) is not here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.config import build_config, config_to_dict
from speechllm.nn.pretrained import filled_model, fingerprint, read_folder, write_folder
from speechllm.nn.rvq import ResidualVectorQuantizer, RVQConfig
from speechllm.nn.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder, State
from speechllm.tokenizers.codec import bitrate_kbps, check_codes, check_waveforms, pad_to_frames
from speechllm.tokenizers.streaming import StreamingDecoder, StreamingEncoder

KIND = "soundstream"


@dataclass(frozen=True, kw_only=True)
class SoundStreamConfig:
    """Sizes of the codec."""

    sample_rate: int = 16_000
    "Samples a second, Hz."
    seanet: SEANetConfig = field(default_factory=SEANetConfig)
    "Encoder and decoder."
    quantizer: RVQConfig = field(default_factory=RVQConfig)
    "Codebooks."


class Reconstruction(NamedTuple):
    """A training batch after encoder, quantizer and decoder."""

    waveforms: Float[Tensor, "B S"]
    "Not limited to [-1, 1]."
    codes: Int[Tensor, "B K T"]
    "Of all levels; of none, if nothing was quantised."
    commitment: Float[Tensor, ""]
    "Loss that keeps the encoder near its codebooks."


class SoundStreamCodec(nn.Module):
    """Follows `Codec`."""

    is_causal = True
    streams = True

    def __init__(self, config: SoundStreamConfig):
        super().__init__()
        self.config = config
        self.encoder = SEANetEncoder(config.seanet)
        self.quantizer = ResidualVectorQuantizer(config.seanet.latent_width, config.quantizer)
        self.decoder = SEANetDecoder(config.seanet)

    @property
    def sample_rate(self) -> int:
        """Samples a second, Hz."""
        return self.config.sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of K codes stands for."""
        return self.config.seanet.samples_per_frame

    @property
    def frame_rate(self) -> float:
        """Frames of K codes a second."""
        return self.sample_rate / self.samples_per_frame

    @property
    def num_codebooks(self) -> int:
        """Levels K."""
        return self.config.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Codes N of one level."""
        return self.config.quantizer.codebook_size

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits a second of all levels."""
        return bitrate_kbps(self.frame_rate, self.num_codebooks, self.codebook_size)

    @property
    def fingerprint(self) -> str:
        """Hash of config and weights."""
        return fingerprint(self._saved_config(), self.state_dict())

    def forward(self, waveforms: Float[Tensor, "B S"], quantize: bool = True) -> Reconstruction:
        """Return waveforms as they come back, with gradients; S is a multiple of samples_per_frame.

        In train mode the codebooks learn from the batch and rows use a random number of levels. Without `quantize`
        the decoder gets what the encoder made; there are no codes then (K = 0).
        """
        latents = self.encoder(waveforms[:, None])
        if quantize:
            latents, codes, commitment = self.quantizer(latents)
        else:
            codes = torch.zeros(len(latents), 0, latents.shape[2], dtype=torch.long, device=latents.device)
            commitment = torch.zeros((), device=latents.device)
        # Under autocast the decoder's output is bfloat16, too coarse for spectra.
        return Reconstruction(self.decoder(latents)[:, 0].float(), codes, commitment)

    @torch.no_grad()
    def encode(self, waveforms: Float[Tensor, "B S"]) -> Int[Tensor, "B K T"]:
        """Return codes, T = ceil(S / samples_per_frame): silence fills the last frame.

        Raises:
            AudioError: no samples, or samples that are not finite.
        """
        check_waveforms(waveforms)
        padded = pad_to_frames(waveforms.to(self.quantizer.sums.device), self.samples_per_frame)[:, None]
        return torch.cat([self.quantizer.encode(self.encoder(row[None])) for row in padded])

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B S"]:
        """Return waveforms of T * samples_per_frame samples from the first levels of `codes`.

        Raises:
            VocabularyError: more levels than the codec has, or a code outside its codebook.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        codes = codes.to(self.quantizer.sums.device)
        if codes.shape[2] == 0:
            return torch.zeros(len(codes), 0, device=codes.device)
        return self._decode(codes, None)

    def codebook_vectors(self) -> Float[Tensor, "K N D"]:
        """Return the vector of each code; the decoder's input is the sum over the levels."""
        return self.quantizer.vectors()

    def streaming_encoder(self) -> StreamingEncoder:
        """Return an encoder for one batch of waveforms that arrive in pieces."""
        state: State = {}
        return StreamingEncoder(
            lambda waveforms: self.quantizer.encode(self.encoder(waveforms[:, None], state)),
            num_codebooks=self.num_codebooks,
            samples_per_frame=self.samples_per_frame,
            device=self.quantizer.sums.device,
        )

    def streaming_decoder(self) -> StreamingDecoder:
        """Return a decoder for one batch of codes that arrive in pieces."""
        state: State = {}
        return StreamingDecoder(
            lambda codes: self._decode(codes, state),
            num_codebooks=self.num_codebooks,
            codebook_size=self.codebook_size,
            device=self.quantizer.sums.device,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        write_folder(folder, self._saved_config(), self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote, in eval mode: codes are bit-equal."""
        saved, tensors = read_folder(folder, KIND)
        config = build_config(SoundStreamConfig, saved.get("config", {}), where=str(folder))
        return filled_model(cls(config), tensors, folder)

    def _decode(self, codes: Int[Tensor, "B K T"], state: State | None) -> Float[Tensor, "B S"]:
        return self.decoder(self.quantizer.decode(codes), state)[:, 0].clamp(-1, 1)

    def _saved_config(self) -> dict[str, object]:
        return {"kind": KIND, "config": config_to_dict(self.config)}
