"""Rows of tokens without a corpus: of every kind that a mixture tells apart, and how they become shards.

write_shards(varied_rows(300), tmp_path / "tokens", row_layout(per_shard=70))
"""

from typing import Any

import numpy as np

from speechllm.data.shards import Converted, ShardLayout
from speechllm.data.tokenize import KIND, SCHEMA, TokenRow
from tests.support.tiny import NUM_CODES


def varied_rows(count: int) -> list[TokenRow]:
    """Return rows in both directions, some without text, codes or a parallel side."""
    generator = np.random.default_rng(0)

    def codes(size: int) -> np.ndarray | None:
        return generator.integers(NUM_CODES, size=size) if size else None

    return [_row(i, codes) for i in range(count)]


def _row(i: int, codes: Any) -> TokenRow:
    language, target = ("en", "fr") if i % 3 else ("fr", "en")
    there = None if i % 5 == 0 else target
    return TokenRow(
        id=f"r{i}",
        split="train",
        language=language,
        text="" if i % 7 == 3 else f"sentence {i}",
        duration_seconds=i / 4,
        codes=codes(i % 6),
        translation_language=there,
        translation_text=f"phrase {i}" if there and i % 11 else "",
        translation_codes=codes(i % 4) if there else None,
    )


def row_layout(per_shard: int, fingerprint: str = "f", codebook_size: int = NUM_CODES) -> ShardLayout[TokenRow]:
    """Return the layout that `tokenize` has, with rows as they are."""
    return ShardLayout[TokenRow](
        kind=KIND,
        schema=SCHEMA,
        fingerprint=fingerprint,
        items_per_shard=per_shard,
        details={"codebook_size": codebook_size, "frame_rate": 12.5},
        split_of=lambda row: row.split,
        key_of=lambda row: row.id,
        convert=lambda rows: Converted([vars(row) for row in rows]),
    )
