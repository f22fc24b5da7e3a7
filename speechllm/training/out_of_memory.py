"""Running out of memory as one line that says what to lower.

with explained_out_of_memory("lower rows_per_batch (8)"):
    trainer.train()
"""

import contextlib
from collections.abc import Iterator

import torch

from speechllm.errors import TrainingError

ON_A_CPU = "can't allocate memory"
"What torch says, in an ordinary RuntimeError, when a CPU has no more."


@contextlib.contextmanager
def explained_out_of_memory(advice: str) -> Iterator[None]:
    """Raise a TrainingError with `advice` in the place of torch's page about its allocator."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_memory(error):
            raise
        first = (str(error).splitlines() or [""])[0].partition(". GPU")[0]
        raise TrainingError(f"out of memory ({first or type(error).__name__}); {advice}") from error


def _is_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or ON_A_CPU in str(error)
