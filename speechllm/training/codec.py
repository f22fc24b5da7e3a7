"""Training the codec on a prepared corpus: residual k-means, under a minute on two cores.

codec = train_codec("corpus/", MelRVQConfig(num_codebooks=4), "codec/", seed=0)
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.audio import Audio, load_audio
from speechllm.data.prepare import read_corpus
from speechllm.data.records import Record, Translation
from speechllm.tokenizers.mel_rvq import MelRVQCodec, MelRVQConfig, fit_mel_rvq


def train_codec(corpus_folder: str | Path, config: MelRVQConfig, out: str | Path, *, seed: int) -> MelRVQCodec:
    """Fit a codec to the training split of a prepared corpus, both sides, and save it in `out`.

    Utterances are taken in an order drawn from `seed`, so that `config.kmeans.max_frames` frames of a larger corpus
    come from all over it.

    Raises:
        DataError: the folder is no prepared corpus, or there is less speech than codes.
    """
    seconds = config.kmeans.max_frames * config.frames_per_patch / config.mel.frame_rate
    waveforms = _waveforms(corpus_folder, config.mel.sample_rate, seconds, seed)
    codec = fit_mel_rvq(waveforms, config, seed=seed)
    codec.save_pretrained(out)
    return codec


def training_audio(corpus_folder: str | Path, sample_rate: int) -> Iterator[tuple[str, str, Audio]]:
    """Yield (record id, speaker, audio) for each spoken side of the training split, the record's own side first.

    A speaker is named with the language: one name may stand for two voices.
    """
    for record, side in _spoken_sides(corpus_folder):
        speaker = f"{side.language}/{side.speaker}" if side.speaker else ""
        yield record.id, speaker, load_audio(_content(side), sample_rate)


def _spoken_sides(corpus_folder: str | Path) -> Iterator[tuple[Record, Record | Translation]]:
    for record in read_corpus(corpus_folder, "train"):
        for side in (record, record.translation):
            if side is not None and side.audio is not None:
                yield record, side


def _content(side: Record | Translation) -> bytes:
    assert isinstance(side.audio, bytes), "prepared corpora hold the audio itself"
    return side.audio


def _waveforms(corpus_folder: str | Path, sample_rate: int, seconds: float, seed: int) -> Iterator[Float[Tensor, " S"]]:
    """Yield utterances in random order, `seconds` of speech and a little more (or all there is): no others are read."""
    lengths = [soundfile.info(io.BytesIO(_content(side))).duration for _, side in _spoken_sides(corpus_folder)]
    order = np.random.default_rng(seed).permutation(len(lengths))
    # One more than enough: resampling may round a length down.
    enough = int(np.searchsorted(np.cumsum(np.array(lengths)[order]), seconds)) + 2
    places = {int(number): place for place, number in enumerate(order[:enough])}
    drawn: dict[int, np.ndarray] = {}
    for number, (_, side) in enumerate(_spoken_sides(corpus_folder)):
        if number in places:
            drawn[places[number]] = load_audio(_content(side), sample_rate).samples
    for place in range(len(drawn)):
        yield torch.from_numpy(drawn.pop(place))
