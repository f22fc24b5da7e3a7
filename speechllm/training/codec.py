"""Training the codec on a prepared corpus: residual k-means, under a minute on two cores.

codec = train_codec("corpus/", MelRVQConfig(num_codebooks=4), "codec/", seed=0)
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.audio import Audio, load_audio
from speechllm.data.prepare import read_corpus
from speechllm.tokenizers.mel_rvq import MelRVQCodec, MelRVQConfig, fit_mel_rvq


def train_codec(corpus_folder: str | Path, config: MelRVQConfig, out: str | Path, *, seed: int) -> MelRVQCodec:
    """Fit a codec to the training split of a prepared corpus, both sides, and save it in `out`.

    Utterances are taken in an order drawn from `seed`, so that `config.kmeans.max_frames` frames of a larger corpus
    come from all over it.

    Raises:
        DataError: the folder is no prepared corpus, or there is less speech than codes.
    """
    codec = fit_mel_rvq(_waveforms(corpus_folder, config.mel.sample_rate, seed), config, seed=seed)
    codec.save_pretrained(out)
    return codec


def training_audio(corpus_folder: str | Path, sample_rate: int) -> Iterator[tuple[str, str, Audio]]:
    """Yield (record id, speaker, audio) for each spoken side of the training split, the record's own side first.

    A speaker is named with the language: one name may stand for two voices.
    """
    for record in read_corpus(corpus_folder, "train"):
        for side in (record, record.translation):
            if side is not None and side.audio is not None:
                speaker = f"{side.language}/{side.speaker}" if side.speaker else ""
                yield record.id, speaker, load_audio(side.audio, sample_rate)


def _waveforms(corpus_folder: str | Path, sample_rate: int, seed: int) -> Iterator[Float[Tensor, " S"]]:
    samples = [audio.samples for _, _, audio in training_audio(corpus_folder, sample_rate)]
    for i in np.random.default_rng(seed).permutation(len(samples)):
        yield torch.from_numpy(samples[i])
