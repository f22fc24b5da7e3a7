"""Memory and time of a training before there is a machine for it: from its config and the sizes of its base LM.

    table = training_table(config, PlanConfig(num_gpus=8), base="recipes/llm_8b/base")

The model is built without memory for its weights (torch's meta device), extended and frozen as in training, and
handed to `estimate_memory`. `base` is a folder with the LM's config.json, or a Hub id; the file's sizes are enough.
Shared means that weights, gradients and optimizer are cut into one part for each GPU (FSDP2, ZeRO-3); what is gathered
of them for the layer at work is not counted. Time: operations of planning.py for every parameter that multiplies,
where adapters save those of the frozen matrices' gradients, 2 of 6.
"""

from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from speechllm.errors import CheckpointError
from speechllm.models.causal_lm import num_text_rows
from speechllm.training.memory import GIB, MemoryEstimate, estimate_memory
from speechllm.training.planning import SECONDS, PlanConfig, markdown, number
from speechllm.training.unified import UnifiedTrainConfig, with_what_trains
from speechllm.vocabulary import Vocabulary


def empty_model(config: UnifiedTrainConfig, base: str | Path, num_codes: int) -> nn.Module:
    """Return what the config trains, with shapes and no numbers.

    Raises:
        CheckpointError: there is no config of a causal LM at `base`.
    """
    try:
        sizes = AutoConfig.from_pretrained(base)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(sizes, dtype=getattr(torch, config.model.dtype))
    except (OSError, ValueError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"cannot read the sizes of a causal LM from {base}: {line}; give a folder with its config.json, or a Hub id"
        ) from error
    vocabulary = Vocabulary.for_speech(num_text_rows(model), num_codes)
    with torch.device("meta"):
        model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
        return with_what_trains(model, vocabulary, config)


def plan_memory(model: nn.Module, config: UnifiedTrainConfig, target_share: float) -> MemoryEstimate:
    """Return what one GPU needs that holds everything."""
    training = config.training
    return estimate_memory(
        model, config.optimizer, max_tokens=training.max_tokens, rows=training.rows_per_batch, bf16=training.bf16,
        checkpointing=training.gradient_checkpointing, target_share=target_share,
    )  # fmt: skip


def plan_time(model: nn.Module, config: UnifiedTrainConfig, plan: PlanConfig) -> dict[str, float]:
    """Return tokens, GPU hours, days and dollars of the whole training, every row taken as full."""
    training = config.training
    tokens = training.rows_per_batch * training.gradient_accumulation * training.max_tokens * plan.num_gpus
    total = tokens * training.max_steps
    parameters = list(model.parameters())
    adapted = any(not parameter.requires_grad for parameter in parameters)
    per_parameter = (4 if adapted else 6) + (2 if training.gradient_checkpointing else 0)
    operations = per_parameter * multiplying(model) * total
    gpu_hours = operations / (plan.peak_tflops * 1e12 * plan.mfu) / SECONDS
    return {
        "tokens in a step": float(tokens),
        "tokens in all steps, billions": total / 1e9,
        "GPU hours": gpu_hours,
        "days": gpu_hours / plan.num_gpus / 24,
        "dollars": gpu_hours * plan.dollars_per_gpu_hour,
    }


def multiplying(model: nn.Module) -> int:
    """Return the number of parameters that a token is multiplied by: all but input embeddings that are no head too."""
    lm = cast(PreTrainedModel, model)  # peft's model has the same methods
    total = sum(parameter.numel() for parameter in model.parameters())
    if lm.config.get_text_config(decoder=True).tie_word_embeddings:
        return total
    return total - num_text_rows(lm) * lm.config.get_text_config(decoder=True).hidden_size


def training_table(
    config: UnifiedTrainConfig, plan: PlanConfig, base: str | Path, *, num_codes: int = 1024, target_share: float = 0.5
) -> str:
    """Return memory and time in Markdown.

    `target_share` is the share of tokens with loss; half is what speech in and speech out in equal parts give.
    """
    model = empty_model(config, base, num_codes)
    estimate = plan_memory(model, config, target_share)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    rows = [
        ["parameters, billions", number(sum(p.numel() for p in model.parameters()) / 1e9)],
        ["… that are trained", number(trained / 1e9)],
        *([f"{name}, GiB", number(size / GIB)] for name, size in vars(estimate).items()),
        ["one GPU that holds everything, GiB", number(estimate.total / GIB)],
        [
            f"each of {plan.num_gpus} GPUs that share all but activations, GiB",
            number((estimate.fixed / plan.num_gpus + estimate.activations) / GIB),
        ],
        *([name, number(value)] for name, value in plan_time(model, config, plan).items()),
    ]
    return markdown(["", "value"], rows)
