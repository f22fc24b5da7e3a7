"""Counted work is what torch counts; MFU is a number only where there is a peak to compare with."""

import sys
import types

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from speechllm.data.collate import Collator
from speechllm.data.packing import PackedRows
from speechllm.errors import ConfigError, MissingDependencyError
from speechllm.models.adapters import LoraSettings, add_adapters
from speechllm.processor import EncodedExample
from speechllm.training import kernels, trackers
from speechllm.training.kernels import check_kernels
from speechllm.training.optim import OptimizerConfig
from speechllm.training.throughput import model_work, peak_flops
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer, target_losses
from speechllm.vocabulary import Vocabulary
from tests.support.tiny import tiny_model

SIZE, LENGTH = 120, 64


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "phi3"])
@pytest.mark.parametrize("way", ["full", "lora"])
def test_work_is_what_torch_counts(family, way):
    model = tiny_model(SIZE, family, width=64).train()
    model.set_attn_implementation("eager")  # whose products the counter sees
    if way == "lora":
        model = add_adapters(model, Vocabulary.for_speech(SIZE - 21, 20), LoraSettings(rank=4, train_new_rows=False))
    ids = torch.randint(SIZE, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(LENGTH) < LENGTH // 2, -100, ids)
    batch = {"input_ids": ids, "labels": labels}
    with FlopCounterMode(display=False) as counter:
        losses, targets, _ = target_losses(model, batch, model.get_output_embeddings())
        losses.sum().backward()
    # Logits are rounded up to 256 places in the program, and work for nothing there.
    work = model_work(model)
    expected = work.flops(tokens=2.0 * LENGTH, targets=256.0, pairs=2.0 * LENGTH**2)
    assert len(targets) == 2 * LENGTH // 2
    # Under adapters the first layer has no input that wants a gradient.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.12 if way == "lora" else 0.03)


def test_experts_count_for_the_share_that_a_token_meets():
    model = tiny_model(SIZE, "mixtral", width=64)
    experts = sum(p.numel() for p in model.parameters() if p.ndim == 3)
    dense = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "head" not in n)
    routers = sum(p.numel() for n, p in model.named_parameters() if "gate.weight" in n)
    assert model_work(model).per_token == pytest.approx(6 * (dense - routers + experts * 2 / 4), rel=0.02)


def test_a_peak_is_given_or_known_or_there_is_none(monkeypatch):
    assert peak_flops(torch.device("cpu"), None) is None
    assert peak_flops(torch.device("cpu"), 2.0) == 2e12
    for name, tflops in (("NVIDIA H200", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA L40S", 362), ("NVIDIA L4", 121)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops(torch.device("cuda"), None) == tflops * 1e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Abacus 9000")
    assert peak_flops(torch.device("cuda"), None) is None


def history(folder, example, **options):
    config = TrainingConfig(
        max_steps=2, max_tokens=32, rows_per_batch=2, log_every=1, cpu=True, show_progress=False, **options
    )
    rows = PackedRows(example, 32, open_rows=1)
    trainer = UnifiedTrainer(tiny_model(40), rows, Collator(pad_id=0), None, config, OptimizerConfig(), folder)
    trainer.run()
    return [line for line in trainer.state.log_history if "loss" in line], trainer


def test_lines_count_real_tokens_and_have_mfu_only_with_a_peak(tmp_path):
    example = EncodedExample(np.arange(20), np.ones(20, bool))
    lines, trainer = history(tmp_path / "a", lambda i: example, report_to=[])
    # One example of 20 in each row, of which the collator makes no more than 20.
    assert "mfu" not in lines[0]
    assert {line["non_pad_share"] for line in lines} == {1.0}
    lines, trainer = history(tmp_path / "b", lambda i: example, report_to=[], peak_tflops=1e-6)
    flops = model_work(trainer.model).flops(tokens=40.0, targets=38.0, pairs=800.0)
    for line in lines:
        assert line["mfu"] * 1e6 * 40 / line["tokens_per_second"] == pytest.approx(flops, rel=0.01)


def test_tensorboard_is_the_default(tmp_path):
    example = EncodedExample(np.arange(20), np.ones(20, bool))
    history(tmp_path / "on", lambda i: example)
    assert list((tmp_path / "on" / "runs").rglob("events.out.tfevents.*"))
    history(tmp_path / "off", lambda i: example, report_to=[])
    assert not (tmp_path / "off" / "runs").exists()


def test_trackers_that_are_not_there(monkeypatch):
    with pytest.raises(ConfigError, match=r"no tracker 'wandbb'; did you mean 'wandb'\?"):
        trackers.trackers(["wandbb"])
    monkeypatch.setattr(trackers, "_is_installed", lambda package: False)
    assert trackers.trackers(None) == []
    with pytest.raises(MissingDependencyError, match=r"needs the package trackio.*speechllm\[trackers\]"):
        trackers.trackers(["trackio"])


def test_kernels_that_are_not_there(monkeypatch):
    model = tiny_model(40)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    check_kernels(model, liger=False, rows_per_batch=8, device=cpu)
    model.config._attn_implementation_internal = "flex_attention"
    with pytest.raises(ConfigError, match="no backward pass on a CPU"):
        check_kernels(model, liger=False, rows_per_batch=8, device=cpu)
    check_kernels(model, liger=False, rows_per_batch=8, device=gpu)
    model.config._attn_implementation_internal = "sdpa"
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"liger-kernel.*speechllm\[kernels\]"):
        check_kernels(model, liger=True, rows_per_batch=8, device=gpu)
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match="needs a GPU"):
        check_kernels(model, liger=True, rows_per_batch=8, device=cpu)


def test_liger_leaves_the_loss_to_us(tmp_path, monkeypatch):
    """What the Trainer asks of Liger: every kernel but the losses."""
    asked = {}
    package = types.ModuleType("liger_kernel.transformers")
    package._apply_liger_kernel_to_instance = lambda model, **options: asked.update(options)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", package)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)
    monkeypatch.setattr("speechllm.training.trainer.check_kernels", lambda *_, **__: None)
    example = EncodedExample(np.arange(20), np.ones(20, bool))
    history(tmp_path, lambda i: example, liger=True, report_to=[])
    assert asked == {"cross_entropy": False, "fused_linear_cross_entropy": False}
