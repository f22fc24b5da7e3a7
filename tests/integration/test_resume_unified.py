"""A training that is killed (kill -9), twice, has the batches, losses and weights of one that was not, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speechllm.audio import save_audio
from speechllm.config import save_config
from speechllm.data.mixture import MixtureComponent, MixtureConfig
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.data.tokenize import tokenize_corpus
from speechllm.models.causal_lm import BaseModelConfig
from speechllm.training.trainer import TrainingConfig
from speechllm.training.unified import UnifiedTrainConfig
from tests.support.tiny import tiny_semantic_tokenizer, tiny_speech, tiny_text_tokenizer

ROOT = Path(__file__).parents[2]
MAX_STEPS = 45


def write_config(folder: Path) -> Path:
    wav = folder / "a.wav"
    save_audio(tiny_speech(seconds=0.6), wav)
    other = Translation("fr", "un deux", wav)
    records = [
        Record(id=f"r{i}", split="train", language="en", text="one two", audio=wav, translation=other) for i in range(5)
    ]
    prepare_corpus(records, folder / "corpus")
    tokenizer = tiny_semantic_tokenizer()
    tokenizer.save_pretrained(folder / "semantic")
    tokenize_corpus(folder / "corpus", tokenizer, folder / "tokens")
    tiny_text_tokenizer().save_pretrained(folder / "text")
    tokens = str(folder / "tokens")
    components = [MixtureComponent(tasks=task, folder=tokens) for task in ("ASR", "TTS", "ASR AST S2ST")]
    (folder / "texts.txt").write_text("good morning\nturn on the light please\nbonjour\n")
    components.append(MixtureComponent(tasks="text", folder=str(folder / "texts.txt"), weight=0.5, text_tokens=4))
    training = TrainingConfig(
        max_steps=MAX_STEPS, max_tokens=128, rows_per_batch=2, gradient_accumulation=2, dropout=0.1, save_every=5,
        cpu=True, show_progress=False,
    )  # fmt: skip
    config = UnifiedTrainConfig(
        out=str(folder / "out"),
        semantic_tokenizer=str(folder / "semantic"),
        model=BaseModelConfig(text_tokenizer=str(folder / "text"), hidden_size=32, num_layers=2, num_heads=2),
        mixture=MixtureConfig(components=components, code_noise=0.1),
        training=training,
    )
    save_config(config, folder / "config.yaml")
    return folder / "config.yaml"


def start(config: Path, out: Path, log: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.support.hashed_training", str(log), str(config), f"out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen, is_time: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if is_time():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(60) == -signal.SIGKILL, "the training ended before it could be killed"


def batches(log: Path) -> list[list[str]]:
    """Return [step, hash, loss] of each micro-batch that a process trained on."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def by_step(lines: list[list[str]]) -> dict[int, list[tuple[str, str]]]:
    found: dict[int, list[tuple[str, str]]] = {}
    for step, digest, loss in lines:
        found.setdefault(int(step), []).append((digest, loss))
    return found


@pytest.mark.slow
def test_killed_twice_equals_uninterrupted(tmp_path):
    config, state = write_config(tmp_path), tmp_path / "killed.training"
    logs = [tmp_path / f"killed-{number}.log" for number in range(3)]
    whole = start(config, tmp_path / "whole", tmp_path / "whole.log")
    # As soon as a checkpoint begins to be written: most likely in the middle of it.
    kill_when(
        start(config, tmp_path / "killed", logs[0]),
        lambda: any(int(path.name.rpartition("-")[2]) >= 10 for path in state.glob("checkpoint-*")),
    )
    # Then between two checkpoints, in the middle of a step.
    kill_when(
        start(config, tmp_path / "killed", logs[1]),
        lambda: any(int(step) >= 32 and int(step) % 5 == 2 for step, _, _ in batches(logs[1])[-1:]),
    )
    assert not (tmp_path / "killed").exists()
    assert start(config, tmp_path / "killed", logs[2]).wait(250) == 0
    assert whole.wait(250) == 0

    expected = by_step(batches(tmp_path / "whole.log"))
    assert list(expected) == list(range(MAX_STEPS))
    assert all(len(parts) == 2 for parts in expected.values())
    assert len({digest for parts in expected.values() for digest, _ in parts}) == 2 * MAX_STEPS, "no batch comes twice"
    runs = [by_step(batches(log)) for log in logs]
    for number, run in enumerate(runs):
        first, last = min(run), max(run)
        assert list(run) == list(range(first, last + 1))
        assert first > 0 if number else first == 0, "a killed run goes on from its last checkpoint"
        for step, parts in run.items():
            # The last step of a killed run may lack its second half.
            assert parts == expected[step][: len(parts)], f"run {number}, step {step}"
            assert len(parts) == 2 or (step == last and number < 2)
    assert set().union(*runs) == set(range(MAX_STEPS))
    straight, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
