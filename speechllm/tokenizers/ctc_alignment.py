"""When each letter of a known text is said: the likeliest path of a CTC encoder through that text.

    spans = align_letters(features, audio, "good morning")          # features: CTCFeatures
    spans[0]                                                        # LetterSpan("g", 0.08, 0.187)

    letters              g     o     o        d              targets of CTC
    path             - - g - - o - - o o - -  d  -           one symbol or blank (-) for each emission
    spans               [  |      |        |     ]           borders half way between neighbours

CTC (Graves et al., ICML 2006) sums over all paths that read as the text; forced alignment takes the best of them
(Viterbi). A trained encoder writes a letter within a few emissions of hearing it, not for as long as it lasts: a span
is about where its letter is, with the encoder's frame (80 ms at 12.5 Hz) as resolution. Letters that are not said ("k"
in "knife") get a place between their neighbours all the same.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from speechllm.audio import Audio
from speechllm.errors import DataError
from speechllm.tokenizers.ctc_encoder import BLANK, CTCFeatures


@dataclass(frozen=True)
class LetterSpan:
    """A letter, or a blank between words, and when it is said."""

    letter: str
    start_seconds: float
    end_seconds: float


def align_letters(features: CTCFeatures, audio: Audio, text: str) -> list[LetterSpan]:
    """Return a span for each letter of `text` that the encoder knows, in order and without gaps.

    Raises:
        DataError: the encoder emits fewer symbols for the audio than the text needs.
        AudioError: the audio is empty.
    """
    encoder = features.encoder
    known = [letter for letter in text if letter in encoder.config.symbols]
    path = best_path(features.log_probs(audio), encoder.indices(text))
    seconds = 1 / (encoder.config.frame_rate * encoder.config.emissions_per_frame)
    emissions = [np.flatnonzero(path == place) for place in range(len(known))]
    firsts, lasts = [int(e[0]) for e in emissions], [int(e[-1]) + 1 for e in emissions]
    borders = [(last + first) / 2 for last, first in zip(lasts[:-1], firsts[1:], strict=True)]
    starts, ends = [*firsts[:1], *borders], [*borders, *lasts[-1:]]
    return [
        LetterSpan(letter, start * seconds, end * seconds)
        for letter, start, end in zip(known, starts, ends, strict=True)
    ]


def best_path(log_probs: Float[Tensor, "E V"], targets: Sequence[int]) -> Int[np.ndarray, " E"]:
    """Return which target (its place in `targets`) each emission of the likeliest path writes; -1: a blank.

    Raises:
        DataError: there are fewer emissions than the targets need, or there is no target.
    """
    needed = len(targets) + sum(a == b for a, b in itertools.pairwise(targets))
    if not targets or len(log_probs) < needed:
        raise DataError(
            f"a text of {len(targets)} letters needs {max(1, needed)} emissions or more, the audio has "
            f"{len(log_probs)}; check that text and audio belong together"
        )
    # States: blank, target, blank, target, ..., blank. A blank may be passed over between targets that differ.
    states = np.full(2 * len(targets) + 1, BLANK)
    states[1::2] = targets
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    scores = log_probs.detach().cpu().double().numpy()[:, states]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, :2]
    steps = np.zeros(scores.shape, np.int64)
    for e in range(1, len(scores)):
        one, two = (np.concatenate((np.full(k, -np.inf), best[:-k])) for k in (1, 2))
        choices = np.stack((best, one, np.where(may_skip, two, -np.inf)))
        steps[e] = choices.argmax(0)
        best = choices.max(0) + scores[e]
    state = len(states) - 1 if best[-1] > best[-2] else len(states) - 2
    path = np.zeros(len(scores), np.int64)
    for e in range(len(scores) - 1, -1, -1):
        path[e] = state
        state -= steps[e, state]
    return np.where(path % 2 == 1, path // 2, -1)
