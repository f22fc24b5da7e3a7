"""Put our pipelines into transformers' table. Called when `transformers.pipelines` has been imported.

For "automatic-speech-recognition" the table holds a door: models that are no speechllm checkpoint (Whisper, wav2vec 2)
go through it to the stock pipeline, unchanged. "speech-translation" is a name of its own. `CheckpointLM` stands last
among the classes that load weights: a checkpoint on the Hub comes whole, all of it from the revision asked for.
"""

import importlib
from types import ModuleType
from typing import Any

RECOGNITION, TRANSLATION = "automatic-speech-recognition", "speech-translation"
PIPELINES = {
    RECOGNITION: "speechllm.pipelines.hf.SpeechRecognitionPipeline",
    TRANSLATION: "speechllm.pipelines.hf.SpeechTranslationPipeline",
}


class CheckpointLM:
    """What `pipeline()` loads a checkpoint's LM with. Light: it is in the table before anything of ours is loaded."""

    @classmethod
    def from_pretrained(cls, source: str, **kwargs: Any) -> Any:
        """Return the LM of a checkpoint folder or repository."""
        from speechllm.pipelines.hf import load_lm

        return load_lm(source, **kwargs)


def register(module: ModuleType) -> None:
    """Register with `module`, which is `transformers.pipelines`; a second call changes nothing."""
    tasks: dict[str, dict[str, Any]] = module.PIPELINE_REGISTRY.supported_tasks
    stock = tasks[RECOGNITION]
    # Newer releases name the classes, so that they load when they are needed; older ones hold the classes.
    by_name = isinstance(stock["impl"], str)
    if CheckpointLM not in stock["pt"]:
        stock = {**stock, "pt": (*stock["pt"], CheckpointLM)}
    tasks[RECOGNITION] = {**stock, "impl": _impl(PIPELINES[RECOGNITION], by_name)}
    translation = {"pt": (CheckpointLM,), "type": "multimodal"}
    tasks[TRANSLATION] = {"impl": _impl(PIPELINES[TRANSLATION], by_name), **translation}


def _impl(path: str, by_name: bool) -> Any:
    if by_name:
        return path
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
