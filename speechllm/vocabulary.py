"""The one owner of ids: named blocks of consecutive ids, in order, with a manifest and a hash.

    vocabulary = Vocabulary.of(text=32_000, special=1, semantic=1024)

    block      ids                  modality
    text       0 .. 31999           text      the LLM's own ids, numbers unchanged
    special    32000                special   <|next|>, the mark between the parts of a sequence
    semantic   32001 .. 33024       audio     code c of the semantic tokenizer is id 32001 + c

Stage models (coarse, fine) describe their own layouts with the same class. The manifest is saved in
every checkpoint, and a model with another number of rows is refused. Token shards hold codes and no
ids: they carry the fingerprint of their tokenizer. (AudioPaLM, arXiv:2306.12925, section 3: text ids
first, audio ids after.)
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, SupportsInt

import numpy as np

from speechllm.errors import VocabularyError
from speechllm.registry import suggest

TEXT, SPECIAL, SEMANTIC = "text", "special", "semantic"
SPECIAL_TOKENS = ("<|next|>",)
"The tokens of the special block in order. `<|next|>` closes the input and every output part but the last."
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Block:
    """`size` consecutive ids from `start` on; code c of this block is id `start + c`."""

    name: str
    start: int
    size: int

    @property
    def stop(self) -> int:
        """One past the last id."""
        return self.start + self.size

    def __contains__(self, token_id: object) -> bool:
        return isinstance(token_id, SupportsInt) and self.start <= int(token_id) < self.stop


class Vocabulary:
    """An ordered, gapless table of id blocks starting at 0."""

    def __init__(self, blocks: Sequence[Block]):
        if not blocks:
            raise VocabularyError("a vocabulary needs at least one block, got none")
        expected_start = 0
        for block in blocks:
            if block.size <= 0:
                raise VocabularyError(f"block {block.name!r} has size {block.size}, expected at least 1")
            if block.start != expected_start:
                raise VocabularyError(
                    f"block {block.name!r} starts at id {block.start}, expected {expected_start}: "
                    "blocks are laid end to end"
                )
            expected_start = block.stop
        names = [block.name for block in blocks]
        if len(set(names)) < len(names):
            raise VocabularyError(f"block names repeat: {', '.join(names)}; give each block its own name")
        self.blocks = tuple(blocks)
        self._by_name = {block.name: block for block in blocks}
        self._starts = np.array([block.start for block in blocks])

    @classmethod
    def of(cls, **sizes: int) -> Self:
        """Lay blocks of the given sizes end to end, in the order written."""
        return cls.from_sizes(list(sizes.items()))

    @classmethod
    def from_sizes(cls, sizes: Sequence[tuple[str, int]]) -> Self:
        """Lay (name, size) blocks end to end."""
        blocks: list[Block] = []
        start = 0
        for name, size in sizes:
            blocks.append(Block(name, start, size))
            start += size
        return cls(blocks)

    @classmethod
    def for_speech(cls, num_text_ids: int, num_semantic_codes: int) -> Self:
        """Return the unified LM's layout: text rows as they are, then specials, then audio."""
        return cls.of(text=num_text_ids, special=len(SPECIAL_TOKENS), semantic=num_semantic_codes)

    @property
    def size(self) -> int:
        """Total number of ids: the number of rows of the embedding matrix."""
        return self.blocks[-1].stop

    @property
    def next_id(self) -> int:
        """Id of `<|next|>`, the mark between parts."""
        return self[SPECIAL].start + SPECIAL_TOKENS.index("<|next|>")

    def __getitem__(self, name: str) -> Block:
        """Return the block called `name`."""
        if name not in self._by_name:
            known = ", ".join(self._by_name)
            raise VocabularyError(
                f"no block {name!r} in the vocabulary{suggest(name, self._by_name)} (blocks: {known})"
            )
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.blocks == other.blocks

    def __hash__(self) -> int:
        return hash(self.blocks)

    def __repr__(self) -> str:
        ranges = ", ".join(f"{b.name} {b.start}..{b.stop - 1}" for b in self.blocks)
        return f"Vocabulary({ranges})"

    def to_ids(self, name: str, codes: np.ndarray | Sequence[int]) -> np.ndarray:
        """Turn codes 0..size-1 of a block into ids (int64, same shape).

        Raises:
            VocabularyError: a code lies outside the block.
        """
        block, codes = self[name], _integers(codes, "codes")
        if codes.size and (codes.min() < 0 or codes.max() >= block.size):
            raise VocabularyError(
                f"codes for block {name!r} range over {codes.min()}..{codes.max()}, "
                f"expected 0..{block.size - 1}; were they made by another tokenizer?"
            )
        return codes + block.start

    def to_codes(self, name: str, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Turn ids of a block back into codes: the inverse of `to_ids`."""
        block, ids = self[name], _integers(ids, "ids")
        if ids.size and (ids.min() < block.start or ids.max() >= block.stop):
            raise VocabularyError(
                f"ids range over {ids.min()}..{ids.max()}, but block {name!r} holds {block.start}..{block.stop - 1}"
            )
        return ids - block.start

    def block_indices(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return for each id the index of its block in `blocks` (same shape)."""
        ids = _integers(ids, "ids")
        if ids.size and (ids.min() < 0 or ids.max() >= self.size):
            raise VocabularyError(f"ids range over {ids.min()}..{ids.max()}, expected 0..{self.size - 1}")
        return np.searchsorted(self._starts, ids, side="right") - 1

    def manifest(self) -> dict[str, Any]:
        """Return the JSON-ready table of blocks with its hash."""
        table = {"version": MANIFEST_VERSION, "blocks": [[b.name, b.size] for b in self.blocks]}
        return {**table, "hash": _digest(table)}

    @property
    def hash(self) -> str:
        """Sixteen hex digits that identify the layout."""
        return self.manifest()["hash"]

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """Rebuild a vocabulary from `manifest()`, checking version and hash."""
        try:
            version, sizes, digest = manifest["version"], manifest["blocks"], manifest["hash"]
            vocabulary = cls.from_sizes([(str(name), int(size)) for name, size in sizes])
        except (KeyError, TypeError) as error:
            raise VocabularyError(
                f"vocabulary manifest is broken ({error}); expected version, blocks and hash"
            ) from error
        if version != MANIFEST_VERSION:
            raise VocabularyError(
                f"vocabulary manifest has version {version}, this release reads {MANIFEST_VERSION}; upgrade speechllm"
            )
        if vocabulary.hash != digest:
            raise VocabularyError(
                f"vocabulary manifest says hash {digest} but its blocks give {vocabulary.hash}: it was edited"
            )
        return vocabulary


def _integers(values: np.ndarray | Sequence[int], what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise VocabularyError(f"{what} have dtype {array.dtype}, expected integers")
    return array.astype(np.int64)


def _digest(table: Mapping[str, Any]) -> str:
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
