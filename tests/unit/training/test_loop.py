"""The stage loop: resume equals uninterrupted, a kill loses nothing, NaN is refused."""

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from speechllm.config import build_config, config_to_dict
from speechllm.errors import CheckpointError, ConfigError, TrainingError
from speechllm.training.loop import LoopConfig, learning_rate_factor, train_stage
from speechllm.training.optim import OptimizerConfig
from speechllm.training.stage_checkpoint import latest_checkpoint


class Regression:
    """A net with dropout that learns a fixed linear map; batches come from (seed, step)."""

    def __init__(self, seed=0, nan_at=None):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 16), nn.Linear(16, 1))
        self.seed, self.nan_at, self.seen = seed, nan_at, []

    def batch(self, step):
        self.seen.append(step)
        generator = torch.Generator().manual_seed(self.seed * 1000 + step)
        x = torch.randn(32, 4, generator=generator)
        return {"x": x, "y": x.sum(1, keepdim=True), "step": step}

    def loss(self, batch):
        loss = nn.functional.mse_loss(self.model(batch["x"]), batch["y"])
        return (loss * float("nan") if batch["step"] == self.nan_at else loss), {"size": 32.0}


def config(**changes):
    options = {"steps": 12, "log_every": 3, "save_every": 5, "progress": False, "warmup_steps": 2} | changes
    return LoopConfig(**options)


def weights(stage):
    return torch.cat([p.detach().flatten() for p in stage.model.parameters()])


def test_running_out_of_memory_says_what_to_lower(tmp_path):
    stage = Regression()

    def loss(batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a page of text")

    stage.loss = loss
    with pytest.raises(TrainingError, match=r"^out of memory \(.* 3.00 GiB\); lower the stage's batch size .* bf16$"):
        train_stage(stage, config(), tmp_path)


@pytest.mark.parametrize("kind", ["muon", "adamw", "adafactor"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_resume_equals_uninterrupted(tmp_path, kind, bf16):
    options = {"optimizer": OptimizerConfig(kind=kind, learning_rate=1e-2), "bf16": bf16}
    whole, stopped = Regression(), Regression(nan_at=8)
    reference = train_stage(whole, config(**options), tmp_path / "whole")
    with pytest.raises(TrainingError):
        train_stage(stopped, config(**options), tmp_path / "parts")
    resumed = Regression(seed=0)
    report = train_stage(resumed, config(**options), tmp_path / "parts")
    assert (report.resumed_from, resumed.seen[0]) == (5, 5)
    assert torch.equal(weights(resumed), weights(whole))
    assert report.losses == reference.losses
    assert report.steps == 12


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    first, again = Regression(), Regression(seed=7)
    train_stage(first, config(), tmp_path)
    report = train_stage(again, config(), tmp_path)
    assert again.seen == []
    assert report.steps == report.resumed_from == 12
    assert torch.equal(weights(first), weights(again))


def test_loss_falls_and_history_has_the_rows(tmp_path):
    stage = Regression()
    steps = 150
    report = train_stage(stage, config(steps=steps, optimizer=OptimizerConfig(learning_rate=1e-2)), tmp_path)
    assert report.losses[-1] < 0.3 * report.losses[0]
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(3, steps + 1, 3))
    assert [row["loss"] for row in rows] == list(report.losses)
    assert rows[0]["size"] == 32.0
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{steps}"]


def test_time_limit_stops_with_a_checkpoint_and_goes_on(tmp_path):
    whole, parts = Regression(), Regression()
    train_stage(whole, config(), tmp_path / "whole")
    report = train_stage(parts, config(max_seconds=1e-9), tmp_path / "parts")
    assert report.steps == 1
    assert latest_checkpoint(tmp_path / "parts") is not None
    train_stage(parts, config(), tmp_path / "parts")
    assert torch.equal(weights(parts), weights(whole))


def test_nan_loss_is_refused_with_the_step(tmp_path):
    with pytest.raises(TrainingError, match="loss is nan in step 4"):
        train_stage(Regression(nan_at=3), config(), tmp_path)


def test_another_config_is_refused_by_key(tmp_path):
    train_stage(Regression(), config(), tmp_path)
    with pytest.raises(CheckpointError, match="seed = 0, the config has 1"):
        train_stage(Regression(), config(seed=1), tmp_path)


def test_another_model_is_refused(tmp_path):
    train_stage(Regression(), config(), tmp_path)
    other = Regression()
    other.model = nn.Linear(4, 1)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train_stage(other, config(), tmp_path)


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path):
    train_stage(Regression(), config(), tmp_path)
    files = sorted(path.name for path in (tmp_path / "checkpoint-12").iterdir())
    assert files == ["model.safetensors", "optimizer.safetensors", "state.json"]


def test_model_mode_and_object_are_given_back(tmp_path):
    stage = Regression()
    model = stage.model.eval()
    train_stage(stage, config(steps=1), tmp_path)
    assert stage.model is model
    assert not model.training


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedule_rises_to_one_then_falls(schedule):
    factors = [learning_rate_factor(step, config(schedule=schedule, warmup_steps=4)) for step in range(12)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[4:]))
    assert (factors[-1] < 0.3) == (schedule != "constant")


def test_config_round_trip_and_bad_values():
    assert build_config(LoopConfig, config_to_dict(config())) == config()
    with pytest.raises(ConfigError, match="steps = 0"):
        config(steps=0)


SCRIPT = """
    import sys, time
    sys.path.insert(0, {folder!r})
    from test_loop import Regression, config
    from speechllm.training.loop import train_stage
    class Slow(Regression):
        def batch(self, step):
            time.sleep(0.05)
            return super().batch(step)
    train_stage(Slow(), config(steps=60, save_every=1), sys.argv[1])
"""


def test_kill_nine_loses_nothing(tmp_path):
    code = textwrap.dedent(SCRIPT.format(folder=str(Path(__file__).parent)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], env=environment)
    try:
        while latest_checkpoint(tmp_path / "killed") is None:
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed, whole = Regression(), Regression()
    report = train_stage(killed, config(steps=60, save_every=60), tmp_path / "killed")
    train_stage(whole, config(steps=60, save_every=60), tmp_path / "whole")
    assert 0 < report.resumed_from < 60
    assert torch.equal(weights(killed), weights(whole))
