"""What a model was trained for: its tasks with their languages, and the longest speech that it was given to read.

    trained = TrainedFor(tasks={"ASR": ("en", "fr"), "ASR AST": ("en-fr",)}, longest_seconds=4.3)
    trained.covers(TaskTag.of("ASR", "fr"))            # True
    trained.why_not(TaskTag.of("ASR", "de"))           # "... not trained for [ASR German]: its ASR knows en, fr"
    trained.joined(more)                               # after further training

A model asked for anything else answers too, with nonsense: its tag is only words to it. So a chain counts as trained
only if its very tag was, whatever its tasks were trained for one by one. The record says what a model has seen, not how
well it does it: further training adds to it, and what was forgotten meanwhile, only an evaluation can tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

from speechllm.errors import CheckpointError
from speechllm.tasks.tag import TaskTag


@dataclass(frozen=True, kw_only=True)
class TrainedFor:
    """The record, as it stands in a checkpoint's speechllm.json."""

    tasks: Mapping[str, Sequence[str]]
    "Names as in a tag, `ASR` or `ASR AST` -> languages `fr`, or directions `fr-en` of what translates; sorted."
    longest_seconds: float | None = None
    "Of the recordings that it was given to read, in one piece; None: it reads no speech."

    def covers(self, tag: TaskTag) -> bool:
        """Return whether the model was trained for this very tag."""
        return tag.direction in self.tasks.get(tag.name, ())

    def why_not(self, tag: TaskTag) -> str:
        """Return one line that says that the model was not trained for a tag, and what it has in its place."""
        line = f"this checkpoint was not trained for {tag}"
        if tag.name in self.tasks:
            return f"{line}: its {tag.name} knows {', '.join(self.tasks[tag.name])}"
        parts = [task.name for task in tag.tasks]
        if len(parts) > 1 and all(self.covers(tag.only(name)) for name in parts):
            line += " as one chain; its tasks it knows one by one"
        return f"{line}: it knows {self}" if self.tasks else f"{line}, nor for any other task"

    def sources(self, names: str) -> list[str]:
        """Return the languages that a task reads."""
        return sorted({direction.partition("-")[0] for direction in self.tasks.get(names, ())})

    def targets(self, names: str, source: str) -> list[str]:
        """Return the languages that a task translates into from `source`; none if it does not translate."""
        pairs = [direction.partition("-") for direction in self.tasks.get(names, ())]
        return sorted(target for here, _, target in pairs if here == source and target)

    @property
    def languages(self) -> list[str]:
        """All languages, of any task, on either side."""
        return sorted({code for directions in self.tasks.values() for pair in directions for code in pair.split("-")})

    def joined(self, other: "TrainedFor") -> "TrainedFor":
        """Return what a model was trained for that had both trainings."""
        names = [*self.tasks, *(name for name in other.tasks if name not in self.tasks)]
        seconds = [one.longest_seconds for one in (self, other) if one.longest_seconds is not None]
        return TrainedFor(
            tasks={name: tuple(sorted({*self.tasks.get(name, ()), *other.tasks.get(name, ())})) for name in names},
            longest_seconds=max(seconds, default=None),
        )

    def __str__(self) -> str:
        """Return the tasks in one line: "ASR (en, fr), ASR AST (en-fr)"."""
        return ", ".join(f"{name} ({', '.join(directions)})" for name, directions in self.tasks.items()) or "nothing"

    def manifest(self) -> dict[str, Any]:
        """Return the record for JSON."""
        tasks = {name: list(directions) for name, directions in self.tasks.items()}
        return {"tasks": tasks, "longest_seconds": self.longest_seconds}

    @classmethod
    def from_manifest(cls, content: Any) -> Self:
        """Read the record back.

        Raises:
            CheckpointError: it is none.
        """
        if not isinstance(content, dict) or set(cast(dict[str, object], content)) != {"tasks", "longest_seconds"}:
            raise CheckpointError(_BROKEN)
        tasks, seconds = cast(object, content["tasks"]), cast(object, content["longest_seconds"])
        if not isinstance(tasks, dict) or not (seconds is None or (isinstance(seconds, int | float) and seconds > 0)):
            raise CheckpointError(_BROKEN)
        found = {name: _directions(entries) for name, entries in cast(dict[str, object], tasks).items()}
        return cls(tasks=found, longest_seconds=seconds)


NOTHING = TrainedFor(tasks={})
"Of a model before its first training on tasks."
_BROKEN = (
    "the checkpoint's record of what it was trained for is broken; expected "
    "{'tasks': {'ASR': ['en', ...], ...}, 'longest_seconds': number or null}"
)


def _directions(found: object) -> tuple[str, ...]:
    entries = cast(list[object], found) if isinstance(found, list) else [None]
    if not all(isinstance(entry, str) for entry in entries):
        raise CheckpointError(_BROKEN)
    return tuple(str(entry) for entry in entries)
