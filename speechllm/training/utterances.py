"""Utterances as both kinds of codes, and a file that keeps those of a corpus.

    utterances = encode_utterances("corpus", tokenizer, codec, num_codebooks=12, codes_file="runs/codes.safetensors")
    utterances[0].semantic.shape, utterances[0].acoustic.shape        # (75,), (12, 150): 3 s at 25 and 50 Hz

Making codes with a pretrained encoder and codec takes longer than anything else before training. The file holds what
they were made of and with: after any change they are made again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from speechllm.data.shards import MANIFEST_FILE
from speechllm.data.tokenize import Tokenizer, read_tokens
from speechllm.errors import DataError
from speechllm.tokenizers.codec import Codec
from speechllm.training.codec import training_audio
from speechllm.training.loop import save_once


@dataclass(frozen=True, eq=False)
class AcousticUtterance:
    """One training utterance: semantic [T / r] and acoustic [K, T] codes, r codec frames per semantic code."""

    semantic: np.ndarray
    acoustic: np.ndarray
    speaker: str = ""


def fit_to_codes(utterance: AcousticUtterance, repeat: int) -> tuple[np.ndarray, np.ndarray]:
    """Return semantic [T] and acoustic [K, T * repeat] cut to the semantic codes that are covered whole."""
    semantic, acoustic = utterance.semantic, utterance.acoustic
    T = min(len(semantic), acoustic.shape[1] // repeat)
    if T == 0 or abs(len(semantic) * repeat - acoustic.shape[1]) > 2 * repeat:
        raise DataError(
            f"{len(semantic)} semantic codes do not fit {acoustic.shape[1]} codec frames at {repeat} frames a code; "
            "make both from the same audio"
        )
    return semantic[:T].astype(np.int64), acoustic[:, : T * repeat].astype(np.int64)


def encode_utterances(
    corpus_folder: str | Path,
    semantic_tokenizer: Tokenizer,
    codec: Codec,
    *,
    num_codebooks: int,
    tokens_folder: str | Path | None = None,
    codes_file: str | Path | None = None,
) -> list[AcousticUtterance]:
    """Return both kinds of codes for each spoken side of the training split.

    Args:
        corpus_folder: made by `prepare_corpus`.
        semantic_tokenizer: makes the semantic codes.
        codec: makes the acoustic codes.
        num_codebooks: levels to keep.
        tokens_folder: made by `tokenize_corpus` from the same corpus with this tokenizer: its codes are taken.
        codes_file: where all of them are kept for the next call, which finds them there if nothing has changed.
    """
    wanted = (
        {}
        if codes_file is None
        else {
            "corpus": _hash_of_manifest(corpus_folder),
            "semantic": semantic_tokenizer.fingerprint,
            "codec": codec.fingerprint,
            "num_codebooks": str(num_codebooks),
        }
    )
    if codes_file is not None and (kept := read_utterances(codes_file, wanted)) is not None:
        return kept
    known: dict[str, list[np.ndarray]] = {}
    if tokens_folder is not None:
        for row in read_tokens(tokens_folder, "train", expected_fingerprint=semantic_tokenizer.fingerprint):
            known[row.id] = [codes for codes in (row.codes, row.translation_codes) if codes is not None]
    utterances = []
    for record_id, speaker, audio in training_audio(corpus_folder, codec.sample_rate):
        semantic = known[record_id].pop(0) if known.get(record_id) else semantic_tokenizer.encode([audio])[0]
        acoustic = codec.encode(torch.from_numpy(audio.samples)[None])[0, :num_codebooks]
        utterances.append(AcousticUtterance(semantic, acoustic.cpu().numpy(), speaker))
    if codes_file is not None and utterances:
        save_once(lambda: write_utterances(codes_file, utterances, wanted))
    return utterances


def write_utterances(path: str | Path, utterances: Sequence[AcousticUtterance], made_of: Mapping[str, str]) -> None:
    """Write codes, whole or not at all; `made_of` is what must be the same when they are read."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "semantic": np.concatenate([one.semantic for one in utterances]).astype(np.int32),
        "acoustic": np.concatenate([one.acoustic for one in utterances], axis=1).astype(np.int16),
        "lengths": np.array([(len(one.semantic), one.acoustic.shape[1]) for one in utterances]),
    }
    speakers = json.dumps([one.speaker for one in utterances])
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata={**made_of, "speakers": speakers})
    partial.replace(path)


def read_utterances(path: str | Path, made_of: Mapping[str, str]) -> list[AcousticUtterance] | None:
    """Return what `write_utterances` wrote; None if there is no such file, or it was made of something else."""
    if not Path(path).exists():
        return None
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        speakers = json.loads(metadata.pop("speakers", "[]"))
        if metadata != dict(made_of):
            return None
        semantic, acoustic, lengths = (file.get_tensor(name) for name in ("semantic", "acoustic", "lengths"))
    ends = lengths.cumsum(0)[:-1]
    parts = zip(np.split(semantic, ends[:, 0]), np.split(acoustic, ends[:, 1], axis=1), speakers, strict=True)
    return [AcousticUtterance(*part) for part in parts]


def _hash_of_manifest(corpus_folder: str | Path) -> str:
    """Return what tells one prepared corpus from another: its manifest has the checksums of all shards."""
    return hashlib.sha256((Path(corpus_folder) / MANIFEST_FILE).read_bytes()).hexdigest()
