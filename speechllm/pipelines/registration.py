"""Put our pipelines into transformers' table. Called when `transformers.pipelines` has been imported.

For "automatic-speech-recognition" and "text-to-speech" (an alias of "text-to-audio") the table holds a door: models
that are no speechllm checkpoint (Whisper, VITS) go through it to the stock pipeline, unchanged. "translation" was
removed from transformers 5: it is there again for our checkpoints, and for any other model it fails as before, with the
same message. "speech-translation" and "speech-to-speech-translation" are names of their own. `CheckpointLM` stands last
among the classes that load weights: a checkpoint on the Hub comes whole, all of it from the revision asked for.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

HF = "speechllm.pipelines.hf"
DOORS = {
    "automatic-speech-recognition": f"{HF}.SpeechRecognitionPipeline",
    "text-to-audio": f"{HF}.TextToSpeechPipeline",
}
"Tasks that transformers has: ours where the model is ours."
OWN = {
    "translation": (f"{HF}.TextTranslationPipeline", "text"),
    "speech-translation": (f"{HF}.SpeechTranslationPipeline", "multimodal"),
    "speech-to-speech-translation": (f"{HF}.SpeechToSpeechPipeline", "multimodal"),
}
"Tasks that it has not, with the kind of their input."
_removed: Callable[[str], str] | None = None
"What transformers says of tasks that it has no more."


class CheckpointLM:
    """What `pipeline()` loads a checkpoint's LM with. Light: it is in the table before anything of ours is loaded."""

    @classmethod
    def from_pretrained(cls, source: str, **kwargs: Any) -> Any:
        """Return the LM of a checkpoint folder or repository."""
        from speechllm.pipelines.hf import load_lm

        return load_lm(source, **kwargs)


class TranslatingLM(CheckpointLM):
    """The same for "translation", which is nothing that transformers knows of other models."""

    @classmethod
    def from_pretrained(cls, source: str, **kwargs: Any) -> Any:
        """Return the LM of a checkpoint folder or repository.

        Raises:
            KeyError: it is something else; the very error of transformers without us.
        """
        from speechllm.errors import NoCheckpointError

        try:
            return super().from_pretrained(source, **kwargs)
        except NoCheckpointError:
            refuse_removed("translation")
            raise


def refuse_removed(task: str) -> None:
    """Raise what transformers raises where a task was removed; nothing if it was not."""
    if _removed is not None:
        _removed(task)


def register(module: ModuleType) -> None:
    """Register with `module`, which is `transformers.pipelines`; a second call changes nothing."""
    tasks: dict[str, dict[str, Any]] = module.PIPELINE_REGISTRY.supported_tasks
    # Newer releases name the classes, so that they load when they are needed; older ones hold the classes.
    by_name = isinstance(tasks["automatic-speech-recognition"]["impl"], str)
    for task, path in DOORS.items():
        stock = tasks[task]
        if CheckpointLM not in stock["pt"]:
            stock = {**stock, "pt": (*stock["pt"], CheckpointLM)}
        tasks[task] = {**stock, "impl": _impl(path, by_name)}
    _bring_back(module, "translation")
    for task, (path, kind) in OWN.items():
        loader = TranslatingLM if task == "translation" else CheckpointLM
        tasks[task] = {"impl": _impl(path, by_name), "pt": (loader,), "type": kind}


def _bring_back(module: ModuleType, task: str) -> None:
    """Let `task` through where transformers turns removed tasks away; all else there stays as it is."""
    global _removed
    resolve = getattr(module, "_resolve_deprecated_task", None)
    if resolve is None or task not in getattr(module, "REMOVED_TASKS", {}) or _removed is not None:
        return
    _removed = resolve

    def resolve_but_ours(name: str) -> str:
        return name if name == task else resolve(name)

    module._resolve_deprecated_task = resolve_but_ours  # pyright: ignore[reportAttributeAccessIssue]


def _impl(path: str, by_name: bool) -> Any:
    if by_name:
        return path
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
