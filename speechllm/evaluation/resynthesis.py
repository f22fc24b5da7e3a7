"""Resynthesise your language first: what is lost by tokens alone, before any LM has made a mistake.

    parts = SpeechParts.from_pretrained("runs/mine")
    report = resynthesize(parts, ["a.wav", "b.wav"], language="en", judge=judge, embedder=embedder)
    for stage in report.stages: print(stage.name, *stage.scores)

    original          the recordings
    codec copy        acoustic codes and back: what the codec loses
    semantic codes    semantic codes, acoustic codes in the recording's own voice, waveform: the ceiling of TTS and S2ST

Each is judged for intelligibility (CER, WER of what a recogniser hears), for the voice (cosine to the original) and for
the sound (distance of log-mel spectrograms, dB). Without reference texts, what the recogniser hears in the original is
the reference; its scores on the original are then 0 by construction, and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.errors import DataError
from speechllm.evaluation.judges import Judge
from speechllm.evaluation.speech import codec_copy, speech_scores
from speechllm.metrics.bootstrap import DEFAULT_BOOTSTRAP
from speechllm.metrics.mean import mean_score
from speechllm.metrics.score import Score
from speechllm.metrics.speaker import SpeakerEmbedder, speaker_similarity
from speechllm.pipelines.speech_parts import SpeechParts
from speechllm.safety import embed_watermark
from speechllm.tokenizers.mel import LogMel, LogMelConfig

ORIGINAL, CODEC_COPY, SEMANTIC_CODES = "original", "codec copy", "semantic codes"
MEL = LogMelConfig(num_mels=80)
DECIBELS_PER_NEPER = 20 / np.log(10)
DYNAMIC_RANGE_DB = 80.0
"Below the loudest cell of the original; what is quieter counts as silence."


@dataclass(frozen=True, eq=False)
class Stage:
    """One version of all recordings."""

    name: str
    audios: Sequence[Audio]
    scores: Sequence[Score]


@dataclass(frozen=True, eq=False)
class Resynthesis:
    """What each stage keeps."""

    stages: Sequence[Stage]
    reference: str
    "Where the reference texts come from."


def resynthesize(
    parts: SpeechParts,
    audios: Sequence[AudioSource],
    *,
    language: str,
    judge: Judge | None,
    embedder: SpeakerEmbedder | None,
    texts: Sequence[str] | None = None,
    seed: int = 0,
) -> Resynthesis:
    """Return the recordings, their codec copies and what is made of their semantic codes, with scores.

    Args:
        parts: tokenizer, codec and acoustic model; of a checkpoint (`SpeechSystem.parts`), or before there is one.
        audios: recordings of speech.
        language: spoken in them.
        judge: a recogniser of the language; None: intelligibility is not scored.
        embedder: of voices; None: voices are not compared.
        texts: what is said in each; None: what the judge hears in the originals.
        seed: of SoundStorm's or AudioLM's draws.

    Raises:
        CheckpointError: a part is missing.
        DataError: there are not as many texts as recordings, or no recordings.
    """
    if not audios or (texts is not None and len(texts) != len(audios)):
        raise DataError(f"got {len(audios)} recordings and {'no' if texts is None else len(texts)} texts; give as many")
    originals = [load_audio(audio) for audio in audios]
    _, codec = parts.sound_parts()
    codes = parts.semantic_tokenizer().encode(originals)
    versions = {
        ORIGINAL: originals,
        CODEC_COPY: [codec_copy(audio, codec) for audio in originals],
        SEMANTIC_CODES: [embed_watermark(a) for a in parts.synthesize(codes, voice=originals, seed=seed)],
    }
    heard = None if judge is None else {name: judge.transcribe(found, language) for name, found in versions.items()}
    references = texts if texts is not None or heard is None else [text or "" for text in heard[ORIGINAL]]
    stages = []
    for name, found in versions.items():
        scores: list[Score] = []
        is_reference = texts is None and name == ORIGINAL
        if judge is not None and heard is not None and references is not None and not is_reference:
            scores += speech_scores(references, heard[name], language, judge.name, False, DEFAULT_BOOTSTRAP)
        if name != ORIGINAL:
            if embedder is not None:
                scores.append(speaker_similarity(embedder, found, originals))
            scores.append(mel_distance(originals, found))
        stages.append(Stage(name, found, scores))
    return Resynthesis(stages, "given texts" if texts is not None else "what the judge hears in the original")


def mel_distance(originals: Sequence[Audio], copies: Sequence[Audio]) -> Score:
    """Return the root mean square difference of log-mel spectrograms in dB, frame by frame, mean over recordings.

    Both sides at 16 kHz and equal loudness, quiet cells raised to 80 dB below the original's loudest. Loudness is made
    equal where both sides have sound: what stands in silence (digital zero, or a codec's hiss) says nothing about it.
    Copies must be aligned with their originals; what one has more than the other is cut.
    """
    values: list[float | None] = []
    for original, copy in zip(originals, copies, strict=True):
        a, b = (_log_mel_db(audio) for audio in (original, copy))
        length = min(a.shape[1], b.shape[1])
        if length == 0:
            values.append(None)
            continue
        a, b = a[:, :length], b[:, :length]
        floor = a.max() - DYNAMIC_RANGE_DB
        difference = np.maximum(a, floor) - np.maximum(b + _gain_db(a, b), floor)
        values.append(float(np.sqrt((difference**2).mean())))
    return mean_score(
        values,
        name="log-mel distance",
        unit="dB",
        signature=f"mels:{MEL.num_mels}|rate:{MEL.sample_rate}|range:{DYNAMIC_RANGE_DB:.0f}dB",
        higher_is_better=False,
        reason="" if None not in values else "a recording or its copy is empty",
    )


def _gain_db(a: np.ndarray, b: np.ndarray) -> float:
    """Return how much louder `a` is, over the cells in which neither is silent."""
    sounds = (a > a.max() - DYNAMIC_RANGE_DB) & (b > b.max() - DYNAMIC_RANGE_DB)
    return float((a - b)[sounds].mean()) if sounds.any() else float(a.max() - b.max())


def _log_mel_db(audio: Audio) -> np.ndarray:
    samples = torch.from_numpy(audio.resampled(MEL.sample_rate).samples)
    if len(samples) == 0:
        return np.zeros((MEL.num_mels, 0))
    return LogMel(MEL)(samples[None])[0].numpy() * DECIBELS_PER_NEPER
