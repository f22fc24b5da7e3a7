"""What made the numbers: versions, machine, command, and what the checkpoint says about itself."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("speechllm", "torch", "transformers", "numpy", "jiwer", "sacrebleu", "num2words", "moonshine-voice")


def describe_environment() -> dict[str, Any]:
    """Return versions, machine, threads, command line and time."""
    import torch

    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(sys.argv),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def command_line(arguments: Sequence[str]) -> str:
    """Return a command as others would type it: reports are published, folders of one machine say nothing there."""
    program = Path(arguments[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    words = ["speechllm" if name == "cli" else name]
    for word in arguments[1:]:
        key, separator, value = word.rpartition("=")
        words.append(key + separator + (Path(value).name if Path(value).is_absolute() else value))
    return shlex.join(words)


def describe_system(system: Any) -> dict[str, Any]:
    """Return what can be read off a system without knowing its class: sizes, rates and fingerprints."""
    checkpoint = system.checkpoint
    described: dict[str, Any] = {}
    folder = getattr(checkpoint, "folder", None)
    if folder is not None:
        described["folder"] = os.path.basename(str(folder))  # noqa: PTH119 - only a name
    model = getattr(checkpoint, "model", None)
    if model is not None:
        described["model"] = type(model).__name__
        described["parameters"] = sum(p.numel() for p in model.parameters())
    tokenizer = getattr(getattr(checkpoint, "processor", None), "semantic_tokenizer", None)
    for name, part in (("semantic_tokenizer", tokenizer), ("codec", getattr(checkpoint, "codec", None))):
        if part is not None:
            described[name] = {key: getattr(part, key) for key in PART_FACTS if hasattr(part, key)}
    return described


PART_FACTS = ("sample_rate", "frame_rate", "num_codebooks", "codebook_size", "bitrate_kbps", "fingerprint")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
