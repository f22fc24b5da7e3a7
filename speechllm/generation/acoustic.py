"""From semantic to acoustic codes, whichever model does it: SoundStorm, or AudioLM's coarse and fine stages.

    acoustic_codes(model, [codes_a, codes_b], [voice, None], AcousticDecoding(), seed=0)     # int64 [K, T] each

A function for each kind of model, found by the name that the model carries. Yours is registered with
`ACOUSTIC_STAGES.register("my-kind", "my_package.decoding:my_codes")`, your model in `speechllm.models.acoustic`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from speechllm.errors import VocabularyError
from speechllm.generation.voice import VoicePrompt
from speechllm.models.acoustic import AcousticConfig, AcousticModel
from speechllm.registry import Registry


@dataclass(frozen=True, kw_only=True)
class AcousticDecoding:
    """How acoustic codes are drawn."""

    first_iterations: int = 16
    "SoundStorm: passes for the first level; the others take one each. One with `at_once` takes a single pass for all."
    temperature: float | None = None
    "Of SoundStorm's draws at the first level, or of the coarse stage's; None: the model's own."
    max_batch_frames: int = 4_000
    "Codec frames decoded at once, prompts and padding included."


class AcousticStage(Protocol):
    """Semantic codes and a voice in, acoustic codes out."""

    def __call__(
        self,
        model: Any,
        semantic_codes: Sequence[np.ndarray],
        voices: Sequence[VoicePrompt | None],
        decoding: AcousticDecoding,
        *,
        seed: int,
    ) -> list[np.ndarray]:
        """Return int64 [K, T] for each row, without the prompt's frames.

        A row depends on its codes, its voice and the seed, not on its batch.
        """
        ...


ACOUSTIC_STAGES: Registry[AcousticStage] = Registry(
    "acoustic stage",
    {
        "soundstorm": "speechllm.generation.soundstorm_stage:soundstorm_codes",
        "audiolm": "speechllm.generation.audiolm:audiolm_codes",
    },
)
"How each kind of acoustic model decodes."


def acoustic_codes(
    model: AcousticModel,
    semantic_codes: Sequence[np.ndarray],
    voices: Sequence[VoicePrompt | None],
    decoding: AcousticDecoding,
    *,
    seed: int,
) -> list[np.ndarray]:
    """Return acoustic codes int64 [K, T] for each row, by the function of the model's kind.

    Raises:
        VocabularyError: a code is outside the semantic codebook, or a voice is of another codec.
    """
    rows = [np.asarray(codes, dtype=np.int64) for codes in semantic_codes]
    for codes in rows:
        require_codes(codes, model.config.num_conditions)
    for voice in voices:
        if voice is not None:
            require_speech(voice, model.config)
    return ACOUSTIC_STAGES[model.kind](model, rows, voices, decoding, seed=seed)


def require_speech(speech: VoicePrompt, config: AcousticConfig) -> None:
    """Refuse a voice or recording whose codes are not those of the model's tokenizer and codec.

    Raises:
        VocabularyError: codes out of range, too few levels, or frames that do not go with the semantic codes.
    """
    require_codes(speech.semantic_codes, config.num_conditions)
    acoustic, wanted = speech.acoustic_codes, len(speech.semantic_codes) * config.frames_per_condition
    if acoustic.ndim != 2 or len(acoustic) < config.num_codebooks or acoustic.shape[1] != wanted:
        raise VocabularyError(
            f"the voice has acoustic codes of shape {list(acoustic.shape)}, expected {config.num_codebooks} levels (or "
            f"more) of {wanted} frames; were they made by another codec?"
        )
    known = acoustic[: config.num_codebooks]
    if known.size and not 0 <= known.min() <= known.max() < config.codebook_size:
        raise VocabularyError(
            f"the voice has acoustic codes {known.min()}..{known.max()}, expected 0..{config.codebook_size - 1}; "
            "were they made by another codec?"
        )


def require_codes(codes: np.ndarray, num_conditions: int) -> None:
    """Refuse semantic codes that the acoustic model does not know.

    Raises:
        VocabularyError: a code is outside 0 .. num_conditions - 1.
    """
    if codes.size and not 0 <= codes.min() <= codes.max() < num_conditions:
        raise VocabularyError(
            f"semantic codes range over {codes.min()}..{codes.max()}, expected 0..{num_conditions - 1}; "
            "were they made by another tokenizer?"
        )
