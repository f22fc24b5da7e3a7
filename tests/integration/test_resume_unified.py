"""A training that is killed (kill -9), twice, ends with the very weights of one that was not."""

import os
import signal
import subprocess
import sys
import time
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
MAX_STEPS = 60


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
    training = TrainingConfig(
        max_steps=MAX_STEPS, max_tokens=128, rows_per_batch=2, save_every=5, cpu=True, show_progress=False
    )
    config = UnifiedTrainConfig(
        out=str(folder / "out"),
        semantic_tokenizer=str(folder / "semantic"),
        model=BaseModelConfig(text_tokenizer=str(folder / "text"), hidden_size=32, num_layers=2, num_heads=2),
        mixture=MixtureConfig(components=components, code_noise=0.1),
        training=training,
    )
    save_config(config, folder / "config.yaml")
    return folder / "config.yaml"


def start(config: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "recipes.train_unified", str(config), f"out={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after_checkpoint(process: subprocess.Popen, folder: Path, step: int) -> None:
    """Kill -9 as soon as a checkpoint of `step` or later begins to be written: most likely in the middle of it."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.name.rpartition("-")[2]) >= step for path in folder.glob("checkpoint-*")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(60) == -signal.SIGKILL, "the training ended before it could be killed"


@pytest.mark.slow
def test_killed_twice_equals_uninterrupted(tmp_path):
    config = write_config(tmp_path)
    whole = start(config, tmp_path / "whole")
    state = tmp_path / "killed.training"
    for step in (10, 30):
        kill_after_checkpoint(start(config, tmp_path / "killed"), state, step)
    assert not (tmp_path / "killed").exists()
    assert start(config, tmp_path / "killed").wait(250) == 0
    assert whole.wait(250) == 0
    straight, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
