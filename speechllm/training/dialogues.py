"""Dialogues out of single utterances: who takes turns with whom in an epoch of SoundStorm's training.

    plan_rows(["ann", "bob", "ann", "bob"], DialogueConfig(share=1.0), num_speakers=2, rng=rng)
    # [(Turn(2, 0), Turn(1, 1), Turn(0, 0)), (Turn(3, 0),)]        utterance and turn mark

Corpora of single sentences have no dialogues, and a model with turn marks needs them: utterances of two voices (or of
one, as the second is drawn from all) are laid end to end in turns. Every utterance comes once an epoch, alone or as a
turn. (SoundStorm, arXiv:2305.09636, dialogue synthesis, trains on recorded dialogues.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speechllm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DialogueConfig:
    """How many utterances become turns, and of how long dialogues."""

    share: float = 0.0
    "Share of the utterances (of known speakers) that are turns of a dialogue; 0: none."
    turns: tuple[int, int] = (2, 4)
    "Fewest and most turns; fewer where a speaker has nothing left to say."

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"dialogues.share = {self.share}, expected a share from 0 to 1")
        if not 2 <= self.turns[0] <= self.turns[1]:
            raise ConfigError(f"dialogues.turns = {self.turns}, expected two numbers in order, 2 or more")


class Turn(NamedTuple):
    """One utterance of a row."""

    utterance: int
    mark: int
    "Of its speaker in this row."


def plan_rows(
    speakers: Sequence[str], config: DialogueConfig, *, num_speakers: int, rng: np.random.Generator
) -> list[tuple[Turn, ...]]:
    """Return the rows of an epoch: each utterance once, those alone in order, then the dialogues.

    Args:
        speakers: of each utterance; "" if unknown, which stays alone.
        config: how many dialogues.
        num_speakers: most voices of one dialogue.
        rng: of all draws; none without dialogues.
    """
    if config.share == 0:
        return [(Turn(i, 0),) for i in range(len(speakers))]
    waiting: dict[str, list[int]] = {}
    for i in map(int, rng.permutation(len(speakers))):
        if speakers[i] and rng.random() < config.share:
            waiting.setdefault(speakers[i], []).append(i)
    taken = {i for found in waiting.values() for i in found}
    dialogues = []
    while waiting:
        dialogues.append(_dialogue(waiting, config, num_speakers, rng))
    return [*((Turn(i, 0),) for i in range(len(speakers)) if i not in taken), *dialogues]


def _dialogue(
    waiting: dict[str, list[int]], config: DialogueConfig, num_speakers: int, rng: np.random.Generator
) -> tuple[Turn, ...]:
    """Take the turns of one dialogue from what the speakers have left to say."""
    # Drawn with repeats: now and then somebody speaks alone.
    drawn = rng.choice(sorted(waiting), size=num_speakers).tolist()
    voices = list(dict.fromkeys(drawn))
    # Marks say which turns share a voice, not who begins.
    marks = rng.permutation(num_speakers).tolist() if len(voices) > 1 else [0]
    turns = []
    for number in range(int(rng.integers(config.turns[0], config.turns[1] + 1))):
        place = number % len(voices)
        if voices[place] not in waiting:
            break
        turns.append(Turn(waiting[voices[place]].pop(), marks[place]))
        if not waiting[voices[place]]:
            del waiting[voices[place]]
    # Who is left alone is the first speaker.
    return tuple(turns) if len(turns) > 1 else (Turn(turns[0].utterance, 0),)
