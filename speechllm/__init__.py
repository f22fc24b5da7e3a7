"""speechllm: turn a text LLM into one model that reads and writes speech and text.

    import speechllm
    speechllm.SpeechSystem.from_pretrained("checkpoint").transcribe(["hello.wav"])[0].text

    from transformers import pipeline                       # knows our checkpoints once speechllm is imported
    pipeline("automatic-speech-recognition", model="checkpoint")("hello.wav")      # {"text": ...}

Importing is cheap: names load their modules on first use, torch and transformers with them.
"""

import importlib
from types import ModuleType
from typing import Any

import wrapt

__version__ = "0.1.0"

_EXPORTS = {
    "Audio": "speechllm.audio",
    "load_audio": "speechllm.audio",
    "save_audio": "speechllm.audio",
    "load_config": "speechllm.config",
    "SpeechLLMError": "speechllm.errors",
    "CodeSegment": "speechllm.segments",
    "Example": "speechllm.segments",
    "TextSegment": "speechllm.segments",
    "Vocabulary": "speechllm.vocabulary",
    "TaskTag": "speechllm.tasks",
    "register_task": "speechllm.tasks",
    "UnifiedProcessor": "speechllm.processor",
    "SemanticTokenizer": "speechllm.tokenizers.semantic",
    "extend_causal_lm": "speechllm.models.causal_lm",
    "load_base_lm": "speechllm.models.causal_lm",
    "DecodingConfig": "speechllm.generation.decoding_config",
    "LMDecoder": "speechllm.generation.decode",
    "load_checkpoint": "speechllm.hub",
    "push_checkpoint": "speechllm.hub",
    "save_checkpoint": "speechllm.hub",
    "SpeechSystem": "speechllm.pipelines.system",
    "TaskOutput": "speechllm.pipelines.output",
    "pipeline": "transformers",
}

__all__ = ["__version__", *_EXPORTS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


@wrapt.when_imported("transformers.pipelines")
def _register_pipelines(module: ModuleType) -> None:
    """Make our checkpoints known to `transformers.pipeline`: now if it is loaded, else when it will be."""
    importlib.import_module("speechllm.pipelines.registration").register(module)
