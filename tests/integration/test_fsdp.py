"""Two processes that hold half of the weights each train, save and go on as one that holds them all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from speechllm.training.unified import finished_model
from tests.support import fsdp_processes

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    command = [sys.executable, "-m", "tests.support.fsdp_processes", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, timeout=280, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("way", fsdp_processes.WAYS)
def test_it_is_what_one_process_makes(folder, results, tmp_path, way):
    one = fsdp_processes.trainer(tmp_path, 2, *fsdp_processes.WAYS[way])
    losses = fsdp_processes.losses(one.run())
    for result in results:
        assert result[way]["sharded"]
        assert result[way]["losses"] == pytest.approx(losses, rel=1e-3 if "muon" in way else 1e-5)
    expected = finished_model(one)
    found = AutoModelForCausalLM.from_pretrained(folder / way / "whole")
    assert type(found) is LlamaForCausalLM
    # Muon orthogonalises in bfloat16.
    tolerance = 5e-3 if "muon" in way else 2e-5
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=tolerance, msg=name)
    tied = found.get_input_embeddings().weight is found.get_output_embeddings().weight
    assert tied == ("tied" in way.split())


@pytest.mark.parametrize("way", fsdp_processes.WAYS)
def test_each_holds_a_part(results, way):
    whole = sum(
        p.numel() for p in fsdp_processes.tiny_model(fsdp_processes.SIZE, tied="tied" in way.split()).parameters()
    )
    for result in results:
        assert result[way]["held"] < 0.65 * whole


@pytest.mark.parametrize("way", fsdp_processes.WAYS)
def test_going_on_gives_the_same_losses_and_weights(folder, results, way):
    for result in results:
        assert result[way]["resumed"] == result[way]["losses"][-2:]
    states = [load_file(folder / way / name / "model.safetensors") for name in ("whole", "resumed")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_cannot_be_trained_so_is_refused(results):
    for result in results:
        assert "trains with MULTI_CPU on cpu: every process would hold the whole model" in result["not sharded"]
        adafactor, rows = result["refused"]
        assert "'adafactor' cannot step weights that FSDP spreads over processes; choose adamw or muon" in adafactor
        assert "only_new_rows masks gradients of whole matrices" in rows
