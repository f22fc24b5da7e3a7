"""Checkpoints of a stage run: safetensors and JSON in a folder that is whole or absent.

    save_stage_checkpoint(folder, 500, model, optimizer, {"config": {...}})    # folder/checkpoint-500
    path = latest_checkpoint(folder)
    load_stage_checkpoint(path, model, optimizer)                              # {"step": 500, "config": {...}}

Optimizer state is stored as tensors too: nothing that is read here was ever pickled.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from speechllm.errors import CheckpointError

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
PREFIX = "checkpoint-"


def save_stage_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> Path:
    """Write folder/checkpoint-<step> in one rename, then delete the older ones."""
    final, partial = folder / f"{PREFIX}{step}", folder / f".{PREFIX}{step}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    save_model(model, str(partial / MODEL_FILE))
    tensors, scalars = _flatten(optimizer.state_dict()["state"])
    save_file(tensors, partial / OPTIMIZER_FILE)
    content = {"step": step, "optimizer_scalars": scalars, **state}
    (partial / STATE_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    for older in _checkpoints(folder):
        if older != final:
            shutil.rmtree(older)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the most steps, or None."""
    return max(_checkpoints(folder), key=_step, default=None)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return what was saved beside the tensors, with `step`."""
    try:
        return json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{checkpoint / STATE_FILE} cannot be read ({error}); delete {checkpoint}") from error


def load_stage_checkpoint(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore model and optimizer in place and return the state.

    Raises:
        CheckpointError: a file is missing or broken, or the model has other weights.
    """
    state = read_state(checkpoint)
    try:
        load_model(model, checkpoint / MODEL_FILE)
        tensors = load_file(checkpoint / OPTIMIZER_FILE)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{checkpoint} does not fit this model: {reason}; train into another folder") from error
    # Rates and decays come from the config, which was compared before: only moments and counters are restored.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": _unflatten(tensors, state["optimizer_scalars"]), "param_groups": groups})
    return state


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def _flatten(state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and the plain values of an optimizer's state as {"<index>.<name>": value}."""
    flat = {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}
    tensors = {name: value.detach().contiguous() for name, value in flat.items() if isinstance(value, torch.Tensor)}
    return tensors, {name: value for name, value in flat.items() if name not in tensors}


def _unflatten(tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **scalars}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return state
