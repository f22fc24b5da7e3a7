"""Weights that are spread over processes: what may train so, and how they become one model again.

    check_sharding(accelerator, model, OptimizerConfig(kind="adamw"))     # or one line that says what does not work
    model = whole_model(accelerator, trainer.model)                       # every process calls it

Under FSDP2 a weight is a DTensor with rows in every process; under DeepSpeed's ZeRO-3 it is a stretch of a flat buffer.
Matrices are whole to Muon under FSDP2 (DTensor gathers them for each product), but not under ZeRO.
"""

import os
from typing import Any, cast

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from speechllm.errors import ConfigError
from speechllm.training.optim import OptimizerConfig

WORKS_WITH = {"FSDP": ("adamw", "muon"), "DEEPSPEED": ("adamw",)}
"Kinds of optimizer, by what spreads the weights."


def is_sharded(accelerator: Any) -> bool:
    """Return whether no process has the whole model."""
    return _kind(accelerator) in WORKS_WITH


def _kind(accelerator: Any) -> str:
    return str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))


def check_sharding(accelerator: Any, model: nn.Module, optimizer: OptimizerConfig) -> None:
    """Refuse what would not train, or would silently train something else.

    Raises:
        ConfigError: the message says what to change.
    """
    kind = _kind(accelerator)
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and kind != "FSDP":
        raise ConfigError(
            f"FSDP was asked for, but accelerate trains with {kind} on {accelerator.device.type}: every process would "
            "hold the whole model; launch with ddp.yaml or one_gpu.yaml, or on several GPUs"
        )
    if not is_sharded(accelerator):
        return
    if optimizer.kind not in WORKS_WITH[kind]:
        raise ConfigError(
            f"optimizer.kind = {optimizer.kind!r} cannot step weights that {kind} spreads over processes; "
            f"choose {' or '.join(WORKS_WITH[kind])}, or launch with ddp.yaml"
        )
    if any(parameter._backward_hooks for parameter in model.parameters()):
        raise ConfigError(
            f"only_new_rows masks gradients of whole matrices, which no process has under {kind}; launch with ddp.yaml"
        )


def whole_model(accelerator: Any, model: nn.Module) -> nn.Module:
    """Return the trained model as it was before it was spread, on the CPU of the first process.

    The others get back what they have. Without sharding everybody does.
    """
    if not is_sharded(accelerator):
        return model
    # DeepSpeed's engine knows where its parts are, FSDP2's model does.
    holder = accelerator.deepspeed_engine_wrapped.engine if _kind(accelerator) == "DEEPSPEED" else model
    state = accelerator.get_state_dict(holder)
    if not accelerator.is_main_process:
        return model
    config = cast(PreTrainedModel, model).config
    # By its class: the Auto class would spread what it makes under ZeRO-3, and wait for the others.
    whole: nn.Module = cast(Any, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])(config)
    adapters = getattr(model, "peft_config", None)
    if adapters is not None:
        from peft import get_peft_model

        whole = cast(nn.Module, get_peft_model(cast(PreTrainedModel, whole), next(iter(adapters.values()))))
    whole.load_state_dict(state)
    return whole
