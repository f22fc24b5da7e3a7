"""What the demo offers: tasks in words, and the languages that the checkpoint was trained for in each.

    offers = Offers(system.checkpoint.trained, can_speak=True)
    offers.tasks(SPEECH_TASKS)                        # ["transcribe", "translate and speak", ...]
    offers.sources(SPEECH_TASKS["transcribe"])        # ["en", "fr"]
    offers.targets(TEXT_TASKS["translate"], "en")     # ["fr"]

Of a checkpoint that does not say what it was trained for, everything is offered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from speechllm.tasks import LANGUAGE_NAMES, TASKS, TrainedFor

Steps: TypeAlias = Sequence[Sequence[str]]
"One after the other; each is the tasks of a tag, or others if the model was not trained for those."
SPEECH_TASKS: dict[str, Steps] = {
    "transcribe": [["ASR"]],
    "translate": [["ASR AST", "AST"]],
    "translate and speak": [["ASR AST S2ST", "AST S2ST"]],
    "translate speech to speech directly": [["S2ST"]],
}
"What can be done with a recording."
TEXT_TASKS: dict[str, Steps] = {
    "speak": [["TTS"]],
    "translate": [["MT"]],
    "translate and speak": [["MT"], ["TTS"]],
}
"What can be done with a text."


@dataclass(frozen=True)
class Offers:
    """What a checkpoint can be asked for on the page."""

    trained: TrainedFor | None
    "None: anything."
    can_speak: bool

    def tasks(self, known: Mapping[str, Steps]) -> list[str]:
        """Return the tasks that it does in some language."""
        return [task for task, steps in known.items() if (self.can_speak or not _speaks(steps)) and self.sources(steps)]

    def sources(self, steps: Steps) -> list[str]:
        """Return the languages that a task starts from."""
        if self.trained is None:
            return list(LANGUAGE_NAMES)
        found = sorted({code for names in steps[0] for code in self.trained.sources(names)})
        return [code for code in found if not translates(steps) or self.targets(steps, code)]

    def targets(self, steps: Steps, source: str) -> list[str]:
        """Return the languages that a task translates into from `source`; none if it does not translate."""
        if not translates(steps):
            return []
        if self.trained is None:
            return list(LANGUAGE_NAMES)
        targets = {code for names in steps[0] for code in self.trained.targets(names, source)}
        for later in steps[1:]:
            targets &= {code for names in later for code in self.trained.sources(names)}
        return sorted(targets)

    @property
    def languages(self) -> list[str]:
        """All languages of any task."""
        return list(LANGUAGE_NAMES) if self.trained is None else self.trained.languages


def translates(steps: Steps) -> bool:
    """Return whether the first step names two languages."""
    return any(TASKS[name].translates for name in steps[0][0].split())


def _speaks(steps: Steps) -> bool:
    return any("audio" in TASKS[name].target for step in steps for name in step[0].split())
