"""What two gloo processes on a CPU do together, as JSON for the tests: python -m tests.support.two_processes FOLDER.

The processes are forked once everything is imported: two imports would cost more than all the trainings.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from speechllm.data.collate import Collator
from speechllm.data.packing import PackedRows
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.nn.conformer import ConformerConfig
from speechllm.nn.rvq import RVQConfig
from speechllm.nn.seanet import SEANetConfig
from speechllm.processor import EncodedExample
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.soundstream import SoundStreamConfig
from speechllm.training import loop, trainer
from speechllm.training.loop import LoopConfig, train_stage
from speechllm.training.neural_codec import NeuralCodecTrainConfig, train_neural_codec
from speechllm.training.optim import OptimizerConfig
from speechllm.training.recordings import Recordings
from speechllm.training.soundstorm import SoundStormStage, SoundStormTrainConfig
from speechllm.training.utterances import AcousticUtterance
from tests.support.tiny import tiny_model
from tests.support.tiny_codecs import tones


class Regression:
    """Learns a linear map from batches that are functions of the step."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)

    def batch(self, step):
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))

    def loss(self, batch):
        return (self.model(batch) - batch.sum(1, keepdim=True)).square().mean(), {}


def stop_by_the_clock(folder, rank):
    """The second process's clock stands still: alone it would never stop."""
    clock = time.perf_counter
    loop.time.perf_counter = clock if rank == 0 else lambda: 0.0
    report = train_stage(Regression(), LoopConfig(steps=5, max_seconds=1e-9, progress=False), folder)
    loop.time.perf_counter = clock
    return report.steps


def train_soundstorm(folder, rank, tied):
    """With free heads a batch serves some of them; without a linear start two weights of a tied model serve nobody."""
    del rank
    torch.manual_seed(0)
    config = SoundStormConfig(
        num_conditions=5,
        num_codebooks=4,
        codebook_size=9,
        tied=tied,
        start_context=None,
        codebook_width=6 if tied else 0,
        trunk=ConformerConfig(width=16, num_layers=1, num_heads=2),
    )
    utterances = [AcousticUtterance(np.arange(6) % 5, np.arange(48).reshape(4, 12) % 9) for _ in range(4)]
    batches = SoundStormTrainConfig(max_frames=32, prompt_share=0.0)
    stage = SoundStormStage(SoundStorm(config), utterances, batches, frame_rate=25.0, seed=0)
    return train_stage(stage, LoopConfig(steps=3, progress=False), folder).steps


def train_codec(folder, rank):
    """Return the fingerprints of the codec in memory and of the one on disk."""
    del rank
    config = NeuralCodecTrainConfig(
        codec=SoundStreamConfig(
            seanet=SEANetConfig(width=4, latent_width=16, strides=(4, 5), dilations=(1,)),
            quantizer=RVQConfig(num_codebooks=2, codebook_size=8),
        ),
        discriminator=None,
        batch_size=2,
        crop_seconds=0.1,
        quantize_from_step=1,
        kmeans_crops=4,
        loop=LoopConfig(steps=2, progress=False, log_every=1),
    )
    recordings = Recordings([(tones(seed, 8_000) * 32_767).short().numpy() for seed in range(4)], 16_000)
    codec, _ = train_neural_codec(recordings, config, folder)
    return [codec.fingerprint, load_codec(folder).fingerprint]


def resume_after_a_kill(folder, rank):
    """Return which half-written checkpoints this process removed, and how many steps were made."""
    if rank == 0:
        (folder / "checkpoint-5").mkdir(parents=True)
    loop.save_once(lambda: None)
    removed, remove = [], trainer._remove
    trainer._remove = lambda path: (time.sleep(0.2), removed.append(path.name), remove(path))
    example = EncodedExample(np.arange(10), np.ones(10, bool))
    config = trainer.TrainingConfig(
        max_steps=2, max_tokens=32, rows_per_batch=1, log_every=1, cpu=True, show_progress=False
    )
    rows = PackedRows(lambda i: example, 32)
    made = trainer.UnifiedTrainer(tiny_model(40), rows, Collator(pad_id=0), None, config, OptimizerConfig(), folder)
    history = made.run()
    trainer._remove = remove
    return [removed, made.state.global_step, [row["loss_text"] for row in history if "loss_text" in row]]


def work(rank, port, folder):
    """Do everything as one of the two processes."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    torch.set_num_threads(1)
    results = {
        "clock": stop_by_the_clock(folder / "clock", rank),
        "free": train_soundstorm(folder / "free", rank, tied=False),
        "tied": train_soundstorm(folder / "tied", rank, tied=True),
        "codec": train_codec(folder / "codec", rank),
        "resumed": resume_after_a_kill(folder / "lm", rank),
    }
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def main(folder):
    """Fork the processes and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(rank, port, folder), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(max(abs(worker.exitcode or 0) for worker in workers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
