"""What a mixture trains a model for: the tasks with their languages, and the longest speech that is read.

    trained_for(load_mixture(config, processor), max_tokens=256)
    # TrainedFor(tasks={"ASR": ("en", "fr"), "AST": ("en-fr", "fr-en")}, longest_seconds=4.3)

Components of weight 0 teach nothing. Speech whose codes alone fill a row is left out by packing, and so it is here.
"""

import itertools

import numpy as np

from speechllm.data.mixture import Mixture
from speechllm.tasks import TaskTag, TrainedFor


def trained_for(mixture: Mixture, *, max_tokens: int) -> TrainedFor:
    """Return what a model is trained for by a mixture in rows of `max_tokens`."""
    tasks: dict[str, set[str]] = {}
    longest = 0.0
    for use in mixture.uses():
        reads_speech = TaskTag.of(use.tasks, "en", "fr").source == "audio"
        fits = use.num_codes < max_tokens if reads_speech else np.ones(len(use.languages), bool)
        for source, target in set(itertools.compress(use.languages, fits)):
            tag = TaskTag.of(use.tasks, source, target)
            tasks.setdefault(tag.name, set()).add(tag.direction)
        if reads_speech:
            longest = max(longest, float(use.seconds[fits].max(initial=0.0)))
    return TrainedFor(
        tasks={names: tuple(sorted(found)) for names, found in tasks.items()}, longest_seconds=longest or None
    )
