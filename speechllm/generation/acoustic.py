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
from speechllm.models.acoustic import AcousticModel
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
        VocabularyError: a code is outside the semantic codebook.
    """
    rows = [np.asarray(codes, dtype=np.int64) for codes in semantic_codes]
    for codes in [*rows, *(voice.semantic_codes for voice in voices if voice is not None)]:
        require_codes(codes, model.config.num_conditions)
    return ACOUSTIC_STAGES[model.kind](model, rows, voices, decoding, seed=seed)


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
