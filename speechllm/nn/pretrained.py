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
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from speechllm.errors import CheckpointError

Model = TypeVar("Model", bound=nn.Module)
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def write_folder(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config` (which names its "kind") and `tensors`; an error leaves what stood there.

    Killed between its two files, a folder has no config and is refused: never the weights of one model with the config
    of another.
    """
    folder = Path(folder)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    contents = {WEIGHTS_FILE: weights, CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode()}
    partials = {folder / name: folder / f".{name}.{os.getpid()}.partial" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial, content in zip(partials.values(), contents.values(), strict=True):
            partial.write_bytes(content)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for path, partial in partials.items():
            os.replace(partial, path)
    except OSError as error:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {folder}: {error.strerror}; check space and rights") from error


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


def saved_kind(folder: str | Path, what: str) -> str:
    """Return the kind that config.json in `folder` names; `what` ("a codec") is what the reader looked for.

    Raises:
        CheckpointError: there is no readable config.json that names a kind.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not name {what} ({error}); give a folder that save_pretrained wrote"
        ) from error


def filled_model(model: Model, tensors: Mapping[str, Tensor], folder: str | Path) -> Model:
    """Return `model` with the weights that `read_folder` found, in evaluation mode.

    Raises:
        CheckpointError: weights are missing, too many or of other sizes.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the weights in {folder} do not fit its config: {reason}; give a folder saved whole"
        ) from error
    return model.eval()


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return sixteen hex digits that identify config and weights."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
