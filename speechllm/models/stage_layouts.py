"""How each stage of AudioLM lays its codes out as one row of ids: what is given, BOS, what is predicted, EOS.

    layout = stage_layout("coarse", CodeSizes(num_conditions=1024, codebook_size=1024, num_codebooks=12, num_coarse=4))
    ids = layout.encode(semantic[None], acoustic[:4], end=True)      # [1, n], [4, T] -> int64 [n + 1 + 4 T + 1]
    layout.decode(ids)                                               # the same codes back

    stage      prefix                  target
    semantic                     BOS   z z z z z z z ...               EOS
    coarse     z z z z           BOS   a b c d  a b c d  a b c d       EOS    a .. d: levels 0 .. 3 of a frame
    fine       a b c d  a b c d  BOS   e f g h  e f g h                       e .. h: levels 4 .. 7 of a frame

Frames follow one another, and within a frame its levels. Each level has a block of ids of its own, so that no two
meanings share an id. EOS is legal only between frames; the fine stage needs none, for its length is that of its prefix.
(AudioLM, arXiv:2209.03143, section 3; the marks are ours, the paper does not print any.)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int

from speechllm.errors import ConfigError, VocabularyError
from speechllm.vocabulary import SEMANTIC, Vocabulary

StageName: TypeAlias = Literal["semantic", "coarse", "fine"]
STAGES: tuple[StageName, ...] = ("semantic", "coarse", "fine")
BOS, EOS = "bos", "eos"


@dataclass(frozen=True, kw_only=True)
class CodeSizes:
    """How many codes there are of each sort."""

    num_conditions: int
    "Number of semantic codes."
    codebook_size: int
    "Codes N of one acoustic level."
    num_codebooks: int
    "Acoustic levels, coarse and fine together."
    num_coarse: int
    "Levels of the coarse stage; all of them means that there is no fine stage."

    def __post_init__(self) -> None:
        if min(self.num_conditions, self.codebook_size) < 2:
            raise ConfigError(
                f"num_conditions = {self.num_conditions}, codebook_size = {self.codebook_size}, expected at least 2"
            )
        if not 1 <= self.num_coarse <= self.num_codebooks:
            raise ConfigError(f"num_coarse = {self.num_coarse}, expected 1 .. num_codebooks = {self.num_codebooks}")


class StageCodes(NamedTuple):
    """What a row of ids holds."""

    prefix: Int[np.ndarray, "P n"]
    "Given codes, one line a level; P = 0 where the stage has no prefix."
    target: Int[np.ndarray, "K T"]
    "Predicted codes."
    ended: bool
    "True if EOS closes the row."


@dataclass(frozen=True)
class StageLayout:
    """Blocks of ids, and which of them take turns in the prefix and in the target."""

    stage: StageName
    vocabulary: Vocabulary
    prefix_blocks: tuple[str, ...]
    target_blocks: tuple[str, ...]

    @property
    def bos_id(self) -> int:
        """Id of the mark that opens the target."""
        return self.vocabulary[BOS].start

    @property
    def eos_id(self) -> int | None:
        """Id of the mark that closes the target; None where the length is known."""
        return self.vocabulary[EOS].start if EOS in self.vocabulary else None

    @property
    def num_levels(self) -> int:
        """Ids of one target frame, K."""
        return len(self.target_blocks)

    def legal_ids(self, position: int) -> Int[np.ndarray, " C"]:
        """Return the ids that may stand at `position` of the target (from 0): a level's block, then EOS if legal."""
        phase = position % self.num_levels
        block = self.vocabulary[self.target_blocks[phase]]
        ids = np.arange(block.start, block.stop)
        return ids if phase or self.eos_id is None else np.append(ids, self.eos_id)

    def encode(
        self, prefix: Int[np.ndarray, "P n"], target: Int[np.ndarray, "K T"], *, end: bool
    ) -> Int[np.ndarray, " L"]:
        """Return the row of ids; with `end`, EOS closes it (if the stage has one).

        Raises:
            VocabularyError: a code lies outside its block, or a level is missing.
        """
        parts = [self._flatten(self.prefix_blocks, prefix), [self.bos_id], self._flatten(self.target_blocks, target)]
        if end and self.eos_id is not None:
            parts.append([self.eos_id])
        return np.concatenate(parts).astype(np.int64)

    def decode(self, ids: Int[np.ndarray, " L"]) -> StageCodes:
        """Return the codes of a row of ids: the inverse of `encode`.

        Raises:
            VocabularyError: an id is not legal where it stands, or a frame is cut.
        """
        marks = np.flatnonzero(ids == self.bos_id)
        if len(marks) != 1:
            raise VocabularyError(f"a {self.stage} row has {len(marks)} BOS, expected one; was it made by `encode`?")
        prefix, target = ids[: marks[0]], ids[marks[0] + 1 :]
        ended = self.eos_id is not None and len(target) > 0 and int(target[-1]) == self.eos_id
        target = target[:-1] if ended else target
        return StageCodes(
            self._unflatten(self.prefix_blocks, prefix), self._unflatten(self.target_blocks, target), ended
        )

    def _flatten(self, blocks: tuple[str, ...], codes: Int[np.ndarray, "K T"]) -> Int[np.ndarray, " L"]:
        if len(codes) != len(blocks):
            raise VocabularyError(f"the {self.stage} stage has levels {', '.join(blocks)}, got {len(codes)} of codes")
        # Time-major: the transpose puts the levels of a frame side by side.
        levels = [self.vocabulary.to_ids(name, codes[k]) for k, name in enumerate(blocks)]
        return np.stack(levels, axis=1).reshape(-1) if levels else np.zeros(0, np.int64)

    def _unflatten(self, blocks: tuple[str, ...], ids: Int[np.ndarray, " L"]) -> Int[np.ndarray, "K T"]:
        if len(ids) % max(1, len(blocks)) or (len(ids) and not blocks):
            raise VocabularyError(f"{len(ids)} ids are no whole frames of {len(blocks)} levels ({self.stage} stage)")
        if not blocks:
            return np.zeros((0, 0), np.int64)
        frames = ids.reshape(-1, len(blocks))
        return np.stack([self.vocabulary.to_codes(name, frames[:, k]) for k, name in enumerate(blocks)])


def stage_layout(stage: StageName, sizes: CodeSizes) -> StageLayout:
    """Return the layout of one stage: its prefix's and target's blocks, then the marks."""
    coarse = tuple(f"level_{k}" for k in range(sizes.num_coarse))
    fine = tuple(f"level_{k}" for k in range(sizes.num_coarse, sizes.num_codebooks))
    prefix, target = {"semantic": ((), (SEMANTIC,)), "coarse": ((SEMANTIC,), coarse), "fine": (coarse, fine)}[stage]
    if not target:
        raise ConfigError(f"all {sizes.num_codebooks} levels are coarse, so there is no fine stage; leave it out")
    blocks = [(name, sizes.num_conditions if name == SEMANTIC else sizes.codebook_size) for name in prefix + target]
    marks = [(BOS, 1)] if stage == "fine" else [(BOS, 1), (EOS, 1)]
    return StageLayout(stage, Vocabulary.from_sizes([*blocks, *marks]), prefix, target)


def remove_repeats(codes: Int[np.ndarray, " T"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Return codes without consecutive repeats, and how often each stood there: np.repeat gives them back."""
    if not len(codes):
        return codes, np.zeros(0, np.int64)
    starts = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
    return codes[starts], np.diff(starts, append=len(codes))
