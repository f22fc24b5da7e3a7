"""What a mixture trains a model for: the tasks with their languages, and the longest speech that is read.

    trained_for(load_mixture(config, processor), max_tokens=256)
    # TrainedFor(tasks={"ASR": ("en", "fr"), "AST": ("en-fr", "fr-en")}, longest_seconds=4.3)

Components of weight 0 teach nothing. Speech whose codes alone fill a row is left out by packing, and so it is here.
"""

from speechllm.data.mixture import Mixture
from speechllm.tasks import TaskTag, TrainedFor


def trained_for(mixture: Mixture, *, max_tokens: int) -> TrainedFor:
    """Return what a model is trained for by a mixture in rows of `max_tokens`."""
    tasks: dict[str, set[str]] = {}
    longest = 0.0
    for names, row, reverse in mixture.uses():
        source, target = row.languages(reverse)
        assert source is not None, "only sides that exist are drawn"
        tag = TaskTag.of(names, source, target)
        codes = row.fields(reverse).get("audio", ()) if tag.source == "audio" else ()
        if len(codes) >= max_tokens:
            continue
        tasks.setdefault(tag.name, set()).add(tag.direction)
        if len(codes):
            longest = max(longest, row.translation_duration_seconds if reverse else row.duration_seconds)
    return TrainedFor(
        tasks={names: tuple(sorted(found)) for names, found in tasks.items()}, longest_seconds=longest or None
    )
