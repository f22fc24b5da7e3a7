"""The loss that balances experts is transformers' own, at the weight that the config or the user gives it."""

import numpy as np
import pytest
import torch

from speechllm.data.collate import Collator, collate_rows
from speechllm.data.packing import PackedRows
from speechllm.errors import ConfigError
from speechllm.models.adapters import LoraSettings, add_adapters
from speechllm.processor import EncodedExample
from speechllm.training.checks import Warned, check_experts
from speechllm.training.experts import balance_weight
from speechllm.training.optim import OptimizerConfig
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer
from tests.support.tiny import tiny_model, tiny_processor

PROCESSOR = tiny_processor(semantic=False)
SIZE = PROCESSOR.vocabulary.size
FAMILIES = ("mixtral", "qwen3_moe")


def expert_model(family, *, output_router_logits=False):
    model = tiny_model(SIZE, family)
    model.config.output_router_logits = output_router_logits
    return model


def example(index):
    ids = np.random.default_rng(index).integers(SIZE, size=12 + index % 5)
    return EncodedExample(ids, np.arange(len(ids)) > 4)


def make_trainer(model, folder, **options):
    config = TrainingConfig(max_steps=1, max_tokens=48, cpu=True, show_progress=False, log_every=1, **options)
    optimizer = OptimizerConfig(kind="adamw", learning_rate=1e-3)
    collator = Collator(pad_id=0, row_tokens=48)
    return UnifiedTrainer(model, PackedRows(example, 48), collator, PROCESSOR.vocabulary, config, optimizer, folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers(family, tmp_path):
    batch = collate_rows([[example(i)] for i in range(3)], pad_id=0)
    ours, own = (expert_model(family, output_router_logits=True) for _ in range(2))
    expected = own(**batch, use_cache=False)
    expected.loss.backward()
    trainer = make_trainer(ours, tmp_path)
    loss = trainer.compute_loss(ours, batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert trainer._gauges()["loss_balance"] == pytest.approx(expected.aux_loss.item(), rel=1e-6)
    for (name, a), b in zip(own.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weight_is_the_configs_or_the_one_given(family, tmp_path):
    quiet, loud = expert_model(family), expert_model(family, output_router_logits=True)
    own = loud.config.router_aux_loss_coef
    assert [balance_weight(quiet, None), balance_weight(loud, None)] == [0.0, own]
    assert [balance_weight(model, given) for model in (quiet, loud) for given in (0.5, 0.0)] == [0.5, 0.0, 0.5, 0.0]
    adapted = add_adapters(expert_model(family, output_router_logits=True), PROCESSOR.vocabulary, LoraSettings(rank=2))
    assert balance_weight(adapted, None) == own
    batch = collate_rows([[example(i)] for i in range(3)], pad_id=0)
    losses = {}
    for given in (0.0, 0.5, 1.0):
        model = expert_model(family, output_router_logits=True)
        losses[given] = make_trainer(model, tmp_path / str(given), router_loss=given).compute_loss(model, batch).item()
    assert losses[1.0] - losses[0.0] == pytest.approx(2 * (losses[0.5] - losses[0.0]), rel=1e-4)
    assert losses[0.5] > losses[0.0]


def test_what_is_said_before_step_1():
    model = expert_model("mixtral")
    with pytest.raises(
        Warned, match=r"nothing keeps all experts in use: .* set training\.router_loss \(its own weight"
    ):
        check_experts(model, None)
    with pytest.raises(Warned, match="as router_loss: 0 says"):
        check_experts(model, 0.0)
    assert check_experts(model, 0.02) == "a loss of weight 0.02 balances them"
    with pytest.raises(
        ConfigError, match=r"router_loss = 0\.1, but LlamaForCausalLM has no loss that balances experts"
    ):
        balance_weight(tiny_model(SIZE), 0.1)
    with pytest.raises(ConfigError, match="router_loss = -1"):
        TrainingConfig(max_steps=1, router_loss=-1.0)


def test_micro_batches_are_averaged(tmp_path):
    """Two micro-batches of a row and one of both rows: weights and logs are alike but for what a batch's mean is of."""
    logs = {}
    for rows, accumulation in ((2, 1), (1, 2)):
        model = expert_model("mixtral", output_router_logits=True)
        trainer = make_trainer(
            model, tmp_path / str(rows), rows_per_batch=rows, gradient_accumulation=accumulation, router_loss=1.0
        )
        logs[rows] = trainer.run()[0]
    assert logs[1]["loss"] == pytest.approx(logs[2]["loss"], rel=0.02)
    assert logs[1]["loss_balance"] == pytest.approx(logs[2]["loss_balance"], rel=0.05)
    assert logs[1]["loss_balance"] > 1, "of four experts, two of them taken"
