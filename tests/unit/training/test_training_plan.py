"""Sizes of LLMs as their makers publish them, and memory and time that follow from them."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from speechllm.cli.main import app
from speechllm.config import load_config
from speechllm.errors import CheckpointError
from speechllm.models.adapters import LoraSettings
from speechllm.training.planning import PlanConfig
from speechllm.training.training_plan import empty_model, multiplying, plan_memory, plan_time
from speechllm.training.unified import UnifiedTrainConfig

RECIPES = Path(__file__).parents[3] / "recipes"
CODES = 1024


def config_of(name):
    return load_config(UnifiedTrainConfig, RECIPES / name / "config.yaml")


@pytest.mark.parametrize(
    ("name", "total", "without_embeddings"), [("llm_8b", 8.2e9, 6.95e9), ("llm_1b", 1.71e9, 1.61e9)]
)
def test_sizes_are_those_that_the_makers_publish(name, total, without_embeddings):
    """The cards of Qwen3-8B (8.2B, 6.95B without embeddings) and SmolLM2-1.7B (1.71B)."""
    model = empty_model(config_of(name), RECIPES / name / "base", CODES)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    found = sum(parameter.numel() for parameter in model.parameters())
    matrices = {id(layer.weight): layer.weight.numel() for layer in (model.get_input_embeddings(), model.lm_head)}
    assert found == pytest.approx(total, rel=0.005)
    assert found - sum(matrices.values()) == pytest.approx(without_embeddings, rel=0.005)
    # Tied, the one matrix is the head, and multiplies; untied, the input matrix is only looked up in.
    assert multiplying(model) == found - (len(matrices) - 1) * next(iter(matrices.values()))


def test_adapters_need_less_than_all_parameters_and_time_falls_by_a_third():
    config = dataclasses.replace(config_of("llm_1b"), model=dataclasses.replace(config_of("llm_1b").model))
    plain = dataclasses.replace(config.training, gradient_checkpointing=False)
    full = dataclasses.replace(config, training=plain)
    adapted = dataclasses.replace(full, lora=LoraSettings(rank=8))
    models = [empty_model(one, RECIPES / "llm_1b" / "base", CODES) for one in (full, adapted)]
    memory = [plan_memory(model, one, 0.5) for model, one in zip(models, (full, adapted), strict=True)]
    assert memory[1].optimizer < memory[0].optimizer / 50
    assert memory[1].gradients < memory[0].gradients / 50
    hours = [plan_time(m, c, PlanConfig())["GPU hours"] for m, c in zip(models, (full, adapted), strict=True)]
    assert hours[1] == pytest.approx(hours[0] * 4 / 6, rel=0.02)


def test_time_is_operations_over_what_the_gpus_do():
    config = config_of("llm_8b")
    model = empty_model(config, RECIPES / "llm_8b" / "base", CODES)
    time = plan_time(model, config, PlanConfig(num_gpus=8, peak_tflops=1000.0, mfu=0.5, dollars_per_gpu_hour=2.0))
    tokens = config.training.rows_per_batch * 2048 * 8 * config.training.max_steps
    assert time["tokens in all steps, billions"] == pytest.approx(tokens / 1e9)
    assert time["GPU hours"] == pytest.approx(8 * multiplying(model) * tokens / 5e14 / 3600)
    assert time["dollars"] == pytest.approx(2 * time["GPU hours"])
    assert time["days"] == pytest.approx(time["GPU hours"] / 8 / 24)


def test_a_base_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"give a folder with its config\.json"):
        empty_model(config_of("llm_1b"), tmp_path, CODES)
    command = ["plan", "--train", str(RECIPES / "llm_1b" / "config.yaml"), "--base", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 2
