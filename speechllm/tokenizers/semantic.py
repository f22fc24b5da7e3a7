"""Semantic tokenizer: speech in, one code per frame out, by k-means on the features of a speech encoder.

    tokenizer = fit_semantic_tokenizer(features, audios, SemanticTokenizerConfig(codebook_size=512), seed=0)
    tokenizer.encode([load_audio("greeting.flac")])       # [array([17, 17, 4, ...])], one code per 80 ms at 12.5 Hz
    tokenizer.save_pretrained("semantic_tokenizer")       # config.json, model.safetensors, encoder/

The scheme of AudioLM (arXiv:2209.03143, section 3.2: k-means on a middle layer of w2v-BERT, 25 Hz, 1024 codes) and
AudioPaLM (arXiv:2306.12925, section 3.1: features not normalised when several languages share the codebook).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from speechllm.audio import Audio
from speechllm.config import build_config, config_to_dict
from speechllm.errors import CheckpointError
from speechllm.tokenizers.features import FeatureExtractor, load_features
from speechllm.tokenizers.kmeans import KMeansConfig, NearestCentroid, fit_kmeans

CONFIG_FILE, WEIGHTS_FILE, FEATURES_FOLDER = "config.json", "model.safetensors", "encoder"


@dataclass(frozen=True, kw_only=True)
class SemanticTokenizerConfig:
    """What stands between the features and the codes."""

    codebook_size: int = 1024
    "Number of codes N (1024 in AudioLM and AudioPaLM)."
    standardize: bool = False
    "Shift and scale each feature to mean 0, deviation 1 before k-means. AudioLM does; AudioPaLM found that it hurts."
    deduplicate: bool = False
    "Write a run of equal codes once. Off for a time-aligned vocoder, which needs one code per frame."
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)
    "How the codebook is fitted."


class SemanticTokenizer:
    """Speech to semantic codes. Nearest centroid in squared Euclidean distance; ties go to the lower code.

    Each utterance is encoded alone, so its codes depend on its samples and nothing else: no batch, no padding. Without
    `deduplicate` there are exactly ceil(S / (sample_rate / frame_rate)) codes, at least one.
    """

    def __init__(
        self,
        features: FeatureExtractor,
        centroids: Float[Tensor, "N D"],
        config: SemanticTokenizerConfig,
        *,
        mean: Float[Tensor, " D"] | None = None,
        scale: Float[Tensor, " D"] | None = None,
    ):
        self.feature_extractor, self.config = features, config
        self._centroids = centroids.detach().float().cpu().contiguous()
        self._nearest = NearestCentroid(self._centroids)
        width = self._centroids.shape[1]
        self._mean = torch.zeros(width) if mean is None else mean.detach().float().cpu().contiguous()
        self._scale = torch.ones(width) if scale is None else scale.detach().float().cpu().contiguous()
        self._fingerprint: str | None = None

    @property
    def sample_rate(self) -> int:
        """Rate in Hz that `encode` resamples to."""
        return self.feature_extractor.sample_rate

    @property
    def frame_rate(self) -> float:
        """Codes per second, before deduplication."""
        return self.feature_extractor.frame_rate

    @property
    def codebook_size(self) -> int:
        """Number of codes N."""
        return self._centroids.shape[0]

    @property
    def centroids(self) -> Float[Tensor, "N D"]:
        """The codebook, in the (standardised) feature space."""
        return self._centroids

    @property
    def fingerprint(self) -> str:
        """sha256 over config and weights: equal fingerprints mean equal codes (on one kind of machine)."""
        if self._fingerprint is None:
            digest = hashlib.sha256(json.dumps(self._spec(), sort_keys=True).encode())
            digest.update(self.feature_extractor.fingerprint.encode())
            for name, tensor in sorted(self._tensors().items()):
                digest.update(name.encode() + tensor.numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def features(self, audios: Sequence[Audio]) -> list[Float[Tensor, "T D"]]:
        """Return the (standardised) features of each audio, before quantisation."""
        extracted = (self.feature_extractor(audio.resampled(self.sample_rate)) for audio in audios)
        return [(frames - self._mean) / self._scale for frames in extracted]

    def encode(self, audios: Sequence[Audio]) -> list[np.ndarray]:
        """Return the codes of each audio, int64 [T]; at any sample rate, in any grouping, the same."""
        return [self._codes(frames) for frames in self.features(audios)]

    def _codes(self, frames: Float[Tensor, "T D"]) -> np.ndarray:
        codes = self._nearest(frames)
        if self.config.deduplicate:
            codes = torch.unique_consecutive(codes)
        return codes.numpy().astype(np.int64)

    def to(self, device: str | torch.device) -> Self:
        """Move the speech encoder to a device. Codes may differ between kinds of device where two centroids tie."""
        self.feature_extractor.to(device)
        return self

    def _tensors(self) -> dict[str, Tensor]:
        return {"centroids": self._centroids, "mean": self._mean, "scale": self._scale}

    def _spec(self) -> dict[str, Any]:
        return {"type": "semantic_tokenizer", "version": 1, **config_to_dict(self.config)}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors and the speech encoder in encoder/: a folder whole in itself."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.feature_extractor.save_pretrained(folder / FEATURES_FOLDER)
        partial = folder / f".{WEIGHTS_FILE}.partial"
        save_file(self._tensors(), partial)
        partial.replace(folder / WEIGHTS_FILE)
        spec = {**self._spec(), "fingerprint": self.fingerprint}
        partial = folder / f".{CONFIG_FILE}.partial"
        partial.write_text(json.dumps(spec, indent=2), encoding="utf-8")
        partial.replace(folder / CONFIG_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what `save_pretrained` wrote; codes are bit-equal.

        Raises:
            CheckpointError: a file is missing, or the weights are not those that config.json was written for.
        """
        folder = Path(folder)
        for name in (CONFIG_FILE, WEIGHTS_FILE, FEATURES_FOLDER):
            if not (folder / name).exists():
                raise CheckpointError(
                    f"{folder} holds no {name}; expected a folder by SemanticTokenizer.save_pretrained"
                )
        spec = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        kind, version, fingerprint = (spec.pop(key, None) for key in ("type", "version", "fingerprint"))
        if (kind, version) != ("semantic_tokenizer", 1):
            raise CheckpointError(f"{folder} holds type {kind!r} version {version!r}, expected semantic_tokenizer 1")
        config = build_config(SemanticTokenizerConfig, spec, where=str(folder / CONFIG_FILE))
        tensors = load_file(folder / WEIGHTS_FILE)
        features = load_features(folder / FEATURES_FOLDER)
        tokenizer = cls(features, tensors["centroids"], config, mean=tensors["mean"], scale=tensors["scale"])
        if tokenizer.fingerprint != fingerprint:
            raise CheckpointError(
                f"weights in {folder} have fingerprint {tokenizer.fingerprint[:12]}, its {CONFIG_FILE} says "
                f"{str(fingerprint)[:12]}; the folder was mixed up, save the tokenizer again"
            )
        return tokenizer


def fit_semantic_tokenizer(
    features: FeatureExtractor,
    audios: Iterable[Audio],
    config: SemanticTokenizerConfig | None = None,
    *,
    seed: int,
) -> SemanticTokenizer:
    """Fit k-means on the features of a stream of audio, in bounded memory, and return the tokenizer.

    Raises:
        DataError: the audio has fewer frames than the codebook has codes.
    """
    config = config or SemanticTokenizerConfig()
    stream = (features(audio.resampled(features.sample_rate)) for audio in audios)
    fitted = fit_kmeans(stream, config.codebook_size, config.kmeans, standardize=config.standardize, seed=seed)
    return SemanticTokenizer(features, fitted.centroids, config, mean=fitted.mean, scale=fitted.scale)
