"""From semantic codes to waveforms: acoustic codes in a voice, then the codec.

    audios = synthesize([codes_a, codes_b], acoustic, codec, voice=voice, seed=0)

The acoustic model is whatever the checkpoint holds: SoundStorm, or AudioLM's coarse and fine stages (acoustic.py).
An utterance depends on its codes, the voice and the seed, not on the others that it is made with.
(AudioPaLM, arXiv:2306.12925, section 3.3.)
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from speechllm.audio import Audio
from speechllm.errors import CheckpointError
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.models.acoustic import AcousticModel
from speechllm.tokenizers.codec import Codec


def synthesize(
    semantic_codes: Sequence[np.ndarray],
    acoustic: AcousticModel,
    codec: Codec,
    *,
    voice: VoicePrompt | Sequence[VoicePrompt] | None,
    seed: int,
    first_iterations: int = 16,
    temperature: float | None = None,
    max_batch_frames: int = 4_000,
) -> list[Audio]:
    """Return one waveform for each array of semantic codes; no codes give an empty waveform.

    Args:
        semantic_codes: int [T] each, not deduplicated.
        acoustic: the acoustic model, trained with this codec.
        codec: turns acoustic codes into sound.
        voice: a prompt for all, one for each, or None: a voice is drawn.
        seed: of all draws.
        first_iterations: see `AcousticDecoding`.
        temperature: see `AcousticDecoding`.
        max_batch_frames: see `AcousticDecoding`.

    Raises:
        CheckpointError: the acoustic model was trained with another codec.
        VocabularyError: a code is outside the semantic codebook.
    """
    require_match(acoustic, codec)
    voices = [voice] * len(semantic_codes) if voice is None or isinstance(voice, VoicePrompt) else list(voice)
    decoding = AcousticDecoding(
        first_iterations=first_iterations, temperature=temperature, max_batch_frames=max_batch_frames
    )
    return decode_codes(acoustic_codes(acoustic, semantic_codes, voices, decoding, seed=seed), codec)


def decode_codes(acoustic_codes: Iterable[np.ndarray], codec: Codec) -> list[Audio]:
    """Return the waveform of each array of acoustic codes [K, T]; no frames give an empty one."""
    audios = []
    for codes in acoustic_codes:
        samples = np.zeros(0, np.float32)
        if codes.shape[1]:
            # One at a time: a codec may carry sound across the padding of a batch.
            with torch.no_grad():
                samples = codec.decode(torch.from_numpy(codes)[None])[0].cpu().numpy()
        audios.append(Audio(samples, codec.sample_rate))
    return audios


def require_match(acoustic: AcousticModel, codec: Codec) -> None:
    """Refuse a codec that the acoustic model does not know.

    Raises:
        CheckpointError: the acoustic model was trained with another codec.
    """
    expected = acoustic.config.codec_fingerprint
    if expected and expected != codec.fingerprint:
        raise CheckpointError(
            f"the acoustic model was trained with codec {expected}, this one is {codec.fingerprint}; "
            "use the two that were made together"
        )
