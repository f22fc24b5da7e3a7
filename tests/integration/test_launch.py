"""The launch files are ones that accelerate reads, and two launched processes make what one makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from recipes.train_unified import main
from tests.unit.training.test_unified import write_recipe

ROOT = Path(__file__).parents[2]
FILES = ROOT / "recipes" / "accelerate"
TYPES = {"one_gpu": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero3": "DEEPSPEED"}


def parsed(name):
    """Return what `accelerate launch --config_file` makes of a file."""
    path = str(FILES / f"{name}.yaml")
    arguments = launch_command_parser().parse_args(["--config_file", path, "program.py"])
    return _validate_launch_command(arguments)[0]


def test_there_is_a_page_about_every_file():
    page = (FILES / "README.md").read_text()
    assert {path.stem for path in FILES.glob("*.yaml")} == set(TYPES)
    assert all(f"`{name}.yaml`" in page for name in TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_reads_the_file(name):
    config = load_config_from_file(str(FILES / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type.value == TYPES[name]
    assert config.mixed_precision == "no"
    arguments = parsed(name)
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (name == "fsdp2", name == "deepspeed_zero3")
    if name == "deepspeed_zero3":
        assert (int(arguments.zero_stage), arguments.zero3_init_flag) == (3, False)


def test_the_plugin_of_the_file_is_the_one_that_is_tested(monkeypatch):
    for key, value in prepare_multi_gpu_env(parsed("fsdp2")).items():
        if key.startswith(("FSDP", "ACCELERATE_USE_FSDP")):
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert not plugin.cpu_ram_efficient_loading


@pytest.mark.slow
def test_two_launched_processes_make_what_one_makes(tmp_path):
    path = write_recipe(tmp_path, max_steps=4, report_to=[])
    # Weight for weight after AdamW: a large eps keeps gradients near zero from being blown up.
    options = ["optimizer.kind=adamw", "optimizer.learning_rate=1e-3", "optimizer.eps=1e-4"]
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FILES / "ddp.yaml"),
        "--num_processes", "2", "--main_process_port", "0",
        "-m", "recipes.train_unified", str(path), f"out={tmp_path / 'two'}", *options,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, timeout=280, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    main(path, [f"out={tmp_path / 'one'}", "training.rows_per_batch=2", *options])
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-5, msg=name)
    curves = [json.loads((tmp_path / f"{name}.training" / "history.json").read_text()) for name in ("one", "two")]
    losses = [[line["loss"] for line in curve if "loss" in line] for curve in curves]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    # The first process alone packs, logs and saves; counts are of both.
    shares = [[line["non_pad_share"] for line in curve if "loss" in line] for curve in curves]
    assert shares[1] == pytest.approx(shares[0], rel=1e-6)
    assert ended.stdout.count("train_runtime") <= 1
