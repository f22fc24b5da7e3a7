"""What tasks are given: texts, and recordings that are encoded once for all tasks of a split."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from speechllm.evaluation.items import Item
from speechllm.evaluation.speech import System


@dataclass
class EncodedInputs:
    """Encodes each recording once, and remembers what that took: it belongs to the time of every task that reads it."""

    system: System
    encoded: dict[str, Any] = field(default_factory=dict)
    "By recording (`Item.audio_key`)."
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, items: Sequence[Item]) -> tuple[list[Any], float]:
        """Return the items' recordings as inputs for `System.run`, and the seconds that encoding them took."""
        by_key = {item.audio_key("audio"): item for item in items}
        missing = {key: item for key, item in by_key.items() if key not in self.encoded}
        if missing:
            start = time.perf_counter()
            encoded = self.system.encode([item.audios["audio"] for item in missing.values()])
            each = (time.perf_counter() - start) / len(missing)
            self.encoded |= dict(zip(missing, encoded, strict=True))
            self.seconds |= dict.fromkeys(missing, each)
        keys = [item.audio_key("audio") for item in items]
        return [self.encoded[key] for key in keys], sum(self.seconds[key] for key in keys)
