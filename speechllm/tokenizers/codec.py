"""The codec contract: waveform to acoustic codes and back.

    codec = load_codec("codec")                            # config.json names the kind
    codes = codec.encode(waveforms)                        # [B, S] -> [B, K, T], codes 0 .. codebook_size - 1
    codec.decode(codes[:, :4])                             # [B, 4, T] -> [B, T * samples_per_frame], coarser

Level 0 is the coarsest: every prefix of the K levels decodes. The kinds are mel-rvq, which learns in seconds,
soundstream, which is trained on a GPU, and transformers: EnCodec, DAC, Mimi, X-Codec. A codec of your own follows
`Codec` and is registered with `CODECS.register("my-codec", "my_package.codec:MyCodec")`.
"""

import math
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.audio import num_frames
from speechllm.errors import AudioError, VocabularyError
from speechllm.nn.pretrained import saved_kind
from speechllm.registry import Registry


@runtime_checkable
class Codec(Protocol):
    """What the acoustic stages need of a codec.

    Waveforms and codes may come from any device; what is made of them is where the codec is.
    """

    @property
    def sample_rate(self) -> int:
        """Samples a second, Hz."""
        ...

    @property
    def frame_rate(self) -> float:
        """Frames of K codes a second."""
        ...

    @property
    def num_codebooks(self) -> int:
        """Levels K."""
        ...

    @property
    def codebook_size(self) -> int:
        """Codes N of one level."""
        ...

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits a second of the codes, all levels."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of config and weights; two codecs with equal fingerprints have equal codes."""
        ...

    def encode(self, waveforms: Float[Tensor, "B S"]) -> Int[Tensor, "B K T"]:
        """Return the codes, T = ceil(S / samples per frame)."""
        ...

    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B S"]:
        """Return waveforms in [-1, 1] from the first levels (all, or fewer)."""
        ...

    def codebook_vectors(self) -> Float[Tensor, "K N D"]:
        """Return the vector of each code; a frame is the sum of its levels' vectors."""
        ...

    def to(self, device: str | torch.device) -> Self:
        """Move the weights to a device."""
        ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        ...

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote."""
        ...


CODECS: Registry[type[Codec]] = Registry(
    "codec",
    {
        "mel-rvq": "speechllm.tokenizers.mel_rvq:MelRVQCodec",
        "soundstream": "speechllm.tokenizers.soundstream:SoundStreamCodec",
        "transformers": "speechllm.tokenizers.pretrained_codec:PretrainedCodec",
    },
)
"Kinds of codec by the name that stands in config.json."


def load_codec(folder: str | Path) -> Codec:
    """Load the codec saved in `folder`, whatever its kind.

    Raises:
        CheckpointError: there is no readable config.json that names a kind.
        RegistryError: the kind is not known.
    """
    return CODECS[saved_kind(folder, "a codec")].from_pretrained(folder)


def bitrate_kbps(frame_rate: float, num_codebooks: int, codebook_size: int) -> float:
    """Return frame_rate * K * log2(N) / 1000: 25 Hz with 8 levels of 1024 codes are 2 kbit/s."""
    return frame_rate * num_codebooks * math.log2(codebook_size) / 1_000


def check_waveforms(waveforms: Float[Tensor, "B S"]) -> None:
    """Refuse what no codec can encode.

    Raises:
        AudioError: no samples, or samples that are not finite.
    """
    if waveforms.shape[1] == 0:
        raise AudioError("the waveforms are empty: give at least one sample")
    if not bool(torch.isfinite(waveforms).all()):
        raise AudioError("the waveforms hold samples that are NaN or infinite; expected numbers in [-1, 1]")


def check_codes(codes: Int[Tensor, "B K T"], num_codebooks: int, codebook_size: int) -> None:
    """Refuse codes that a codec of this size cannot decode.

    Raises:
        VocabularyError: more levels than the codec has, or a code outside its codebook.
    """
    K = codes.shape[1]
    if not 1 <= K <= num_codebooks:
        raise VocabularyError(f"got {K} levels of codes, expected 1 to {num_codebooks}")
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise VocabularyError(
            f"codes range over {int(codes.min())}..{int(codes.max())}, expected 0..{codebook_size - 1}"
        )


def pad_to_frames(waveforms: Float[Tensor, "B S"], samples_per_frame: int) -> Float[Tensor, "B S2"]:
    """Append silence up to a whole number of frames."""
    S = waveforms.shape[1]
    return nn.functional.pad(waveforms, (0, num_frames(S, samples_per_frame) * samples_per_frame - S))
