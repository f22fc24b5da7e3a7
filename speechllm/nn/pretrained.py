"""One folder format for small models: config.json and model.safetensors, whole or not at all.

    write_folder(folder, {"kind": "mel-rvq", ...}, {"codebooks": codebooks})
    config, tensors = read_folder(folder, kind="mel-rvq")

Weights are safetensors, never pickle: loading a file that somebody sent cannot run code.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from speechllm.errors import CheckpointError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def write_folder(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config` (which names its "kind") and `tensors`; each file appears whole, the config last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


def read_folder(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors that `write_folder` wrote.

    Raises:
        CheckpointError: a file is missing or broken, or the folder holds another kind.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load((folder / WEIGHTS_FILE).read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot load a {kind} from {folder}: {reason}; give a folder saved whole") from error
    found = config.get("kind") if isinstance(config, dict) else None
    if found != kind:
        raise CheckpointError(f"{folder} holds kind {found!r}, expected {kind!r}; give the folder of a {kind}")
    return config, tensors


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return sixteen hex digits that identify config and weights."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error.strerror}; check space and rights") from error
