"""A codec that learns in seconds: residual k-means over patches of log-mel frames, Griffin-Lim back.

    codec = fit_mel_rvq(waveforms, MelRVQConfig(), seed=0)      # an hour of speech: under a minute on two cores
    codes = codec.encode(waveforms)                             # [B, S] -> [B, 6, T], 25 frames a second
    codec.decode(codes)                                         # [B, 6, T] -> [B, T * 640]

    100 mel frames/s --4 by 4--> patches of 4 x 80 numbers, 25/s --level 0--> nearest of 512 vectors
                                                    what is left --level 1--> nearest of 512 vectors, ...

Residual vector quantisation as in SoundStream (arXiv:2107.03312, section III-C), its encoder and
decoder replaced by the mel front end and Griffin-Lim: speech stays intelligible, not studio quality.
Silence pads the last patch, so any waveform of S >= 1 samples has ceil(S / 640) frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.config import build_config, config_to_dict
from speechllm.errors import CheckpointError, DataError
from speechllm.nn.precision import widest_float
from speechllm.nn.pretrained import fingerprint, read_folder, write_folder
from speechllm.nn.rvq import nearest
from speechllm.tokenizers.codec import bitrate_kbps, check_codes, check_waveforms, pad_to_frames
from speechllm.tokenizers.kmeans import KMeansConfig, fit_kmeans
from speechllm.tokenizers.mel import LogMel, LogMelConfig
from speechllm.tokenizers.vocoder import GriffinLim, GriffinLimConfig

KIND = "mel-rvq"


@dataclass(frozen=True, kw_only=True)
class MelRVQConfig:
    """Sizes of the codec."""

    mel: LogMelConfig = field(default_factory=lambda: LogMelConfig(floor=1e-2))
    "The spectrogram that is quantised. Its floor, 70 dB below loud speech, keeps codes from describing silence."
    frames_per_patch: int = 4
    "Mel frames in one codec frame: 4 of 100 a second give 25 codec frames a second."
    num_codebooks: int = 6
    "Levels K."
    codebook_size: int = 512
    "Codes N of one level."
    vocoder: GriffinLimConfig = field(default_factory=GriffinLimConfig)
    "How mel frames become a waveform."
    kmeans: KMeansConfig = field(default_factory=lambda: KMeansConfig(max_frames=40_000, passes=3))
    "How each codebook is fitted; `max_frames` patches are used at most."


class MelRVQCodec(nn.Module):
    """Follows `Codec`. Codes do not depend on the batch; padding on the right only appends codes."""

    codebooks: Tensor

    def __init__(self, config: MelRVQConfig, codebooks: Float[Tensor, "K N D"] | None = None):
        super().__init__()
        self.config = config
        shape = (config.num_codebooks, config.codebook_size, config.frames_per_patch * config.mel.num_mels)
        codebooks = torch.zeros(shape) if codebooks is None else codebooks
        if tuple(codebooks.shape) != shape:
            raise CheckpointError(f"codebooks have shape {tuple(codebooks.shape)}, the config says {shape}")
        self.register_buffer("codebooks", codebooks.float())
        # Rounding depends on the shape of a batch and could flip a code; in float64 it cannot matter. In a tuple the
        # module stays on the CPU wherever the codec goes: not every device has float64.
        self._mel = (LogMel(config.mel).double(),)
        self.vocoder = GriffinLim(config.mel, config.vocoder)

    @property
    def mel(self) -> LogMel:
        """The float64 spectrogram that is quantised, on the CPU."""
        return self._mel[0]

    @property
    def sample_rate(self) -> int:
        """Samples a second, Hz."""
        return self.config.mel.sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of K codes stands for."""
        return self.config.mel.hop_length * self.config.frames_per_patch

    @property
    def frame_rate(self) -> float:
        """Frames of K codes a second."""
        return self.sample_rate / self.samples_per_frame

    @property
    def num_codebooks(self) -> int:
        """Levels K."""
        return self.config.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Codes N of one level."""
        return self.config.codebook_size

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits a second of all levels."""
        return bitrate_kbps(self.frame_rate, self.num_codebooks, self.codebook_size)

    @property
    def fingerprint(self) -> str:
        """Hash of config and codebooks."""
        return fingerprint(self._saved_config(), {"codebooks": self.codebooks})

    @torch.no_grad()
    def encode(self, waveforms: Float[Tensor, "B S"]) -> Int[Tensor, "B K T"]:
        """Return codes, T = ceil(S / samples_per_frame).

        Raises:
            AudioError: no samples, or samples that are not finite.
        """
        check_waveforms(waveforms)
        patches = self.patches(waveforms)
        device = self.codebooks.device
        residual = patches.flatten(0, 1).to(device, widest_float(device))
        codes = []
        for codebook in self.codebooks:
            codes.append(nearest(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return rearrange(torch.stack(codes), "k (b t) -> b k t", b=len(patches))

    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B S"]:
        """Return waveforms of T * samples_per_frame samples from the first levels of `codes`.

        Raises:
            VocabularyError: more levels than the codec has, or a code outside its codebook.
        """
        return self.vocoder(self.decode_mel(codes))

    def decode_mel(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B M T2"]:
        """Return the log-mel frames that the codes stand for, T2 = T * frames_per_patch."""
        check_codes(codes, self.num_codebooks, self.codebook_size)
        codes = codes.to(self.codebooks.device)
        levels = range(1, codes.shape[1])
        summed = sum((self.codebooks[k][codes[:, k]] for k in levels), start=self.codebooks[0][codes[:, 0]])
        return rearrange(summed, "b t (p m) -> b m (t p)", p=self.config.frames_per_patch)

    def patches(self, waveforms: Float[Tensor, "B S"]) -> Float[Tensor, "B T D"]:
        """Return float64 patches of log-mel frames on the CPU, D = frames_per_patch * num_mels."""
        padded = pad_to_frames(waveforms.cpu().double(), self.samples_per_frame)
        return rearrange(self.mel(padded), "b m (t p) -> b t (p m)", p=self.config.frames_per_patch)

    def codebook_vectors(self) -> Float[Tensor, "K N D"]:
        """Return the vector of each code; a patch is the sum of its levels' vectors."""
        return self.codebooks

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        write_folder(folder, self._saved_config(), {"codebooks": self.codebooks})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote: codes are bit-equal."""
        saved, tensors = read_folder(folder, KIND)
        config = build_config(MelRVQConfig, saved.get("config", {}), where=str(folder))
        if set(tensors) != {"codebooks"}:
            raise CheckpointError(f"{folder} holds tensors {sorted(tensors)}, expected ['codebooks']")
        return cls(config, tensors["codebooks"])

    def _saved_config(self) -> dict[str, object]:
        return {"kind": KIND, "config": config_to_dict(self.config)}


def fit_mel_rvq(waveforms: Iterable[Float[Tensor, " S"]], config: MelRVQConfig, *, seed: int) -> MelRVQCodec:
    """Fit the codebooks by k-means, level after level, each on what the levels before it left.

    Waveforms beyond `kmeans.max_frames` patches are not read. The same waveforms and seed give the same codec.

    Raises:
        DataError: there is less speech than codes.
    """
    codec = MelRVQCodec(config)
    collected: list[np.ndarray] = []
    for waveform in waveforms:
        collected.append(codec.patches(waveform[None])[0].float().numpy())
        if sum(map(len, collected)) >= config.kmeans.max_frames:
            break
    patches = np.concatenate(collected) if collected else np.zeros((0, codec.codebooks.shape[2]), np.float32)
    if len(patches) < config.codebook_size:
        raise DataError(
            f"{len(patches)} frames of speech cannot fill codebooks of {config.codebook_size} codes; "
            "give more speech or a smaller codebook_size"
        )
    return MelRVQCodec(config, fit_residual_codebooks(patches[: config.kmeans.max_frames], config, seed=seed))


def fit_residual_codebooks(patches: np.ndarray, config: MelRVQConfig, *, seed: int) -> Float[Tensor, "K N D"]:
    """Return codebooks fitted to patches float32 [P, D], level by level."""
    residual = torch.from_numpy(patches)
    codebooks = []
    for level in range(config.num_codebooks):
        fitted = fit_kmeans([residual], config.codebook_size, config.kmeans, standardize=False, seed=seed + level)
        residual = residual - fitted.centroids[nearest(residual, fitted.centroids)]
        codebooks.append(fitted.centroids)
    return torch.stack(codebooks)
