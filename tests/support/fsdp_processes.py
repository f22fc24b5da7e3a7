"""Two gloo processes with half of the weights each, as JSON for the tests: python -m tests.support.fsdp_processes OUT.

Accelerate takes FSDP2 to CPUs for plain DDP. Here it is told otherwise, so that what it does on GPUs runs without any.
"""

import json
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from speechllm.data.collate import Collator
from speechllm.data.packing import PackedRows
from speechllm.errors import ConfigError
from speechllm.models.adapters import LoraSettings, add_adapters, train_new_rows_only
from speechllm.processor import EncodedExample
from speechllm.training.optim import OptimizerConfig
from speechllm.training.sharding import whole_model
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer
from speechllm.training.unified import merged_model
from speechllm.vocabulary import Vocabulary
from tests.support.tiny import tiny_model

SIZE, STEPS = 60, 4
VOCABULARY = Vocabulary.for_speech(SIZE - 21, 20)
WAYS = {
    "adamw tied": ("adamw", True, False),
    "muon untied": ("muon", False, False),
    "lora": ("adamw", False, True),
}


def example(index):
    """Return an example of 5 to 20 ids."""
    generator = np.random.default_rng(index)
    length = int(generator.integers(5, 20))
    return EncodedExample(generator.integers(0, SIZE, length), np.ones(length, bool))


def trainer(folder, rows, kind, tied, lora):
    """Return a trainer over `rows` rows for each process; the model starts the same everywhere."""
    model = tiny_model(SIZE, tied=tied)
    if lora:
        model = add_adapters(model, VOCABULARY, LoraSettings(rank=2))
    config = TrainingConfig(
        max_steps=STEPS, max_tokens=32, rows_per_batch=rows, log_every=1, cpu=True, show_progress=False,
        warmup_steps=0, save_every=2, report_to=[],
    )  # fmt: skip
    optimizer = OptimizerConfig(kind=kind, learning_rate=1e-2, eps=1e-4)
    return UnifiedTrainer(model, PackedRows(example, 32), Collator(pad_id=0), VOCABULARY, config, optimizer, folder)


def losses(history):
    """Return the loss of every step."""
    return [line["loss"] for line in history if "loss" in line]


def train(folder, rank, way):
    """Train, save what was gathered, go on from the middle; return what the test compares."""
    made = trainer(folder / "run", 1, *WAYS[way])
    found = {"losses": losses(made.run())}
    parameters = list(made.model.parameters())
    found["sharded"] = all(isinstance(parameter, DTensor) for parameter in parameters)
    found["held"] = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters)
    whole = whole_model(made.accelerator, made.model)
    if rank == 0:
        merged_model(whole).save_pretrained(folder / "whole")
        (folder / "again").mkdir()
        for name in ("checkpoint-2", "settings.json"):
            source = folder / "run" / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / "again" / name)
    made.accelerator.wait_for_everyone()
    again = trainer(folder / "again", 1, *WAYS[way])
    found["resumed"] = losses(again.run())[-2:]
    whole = whole_model(again.accelerator, again.model)
    if rank == 0:
        merged_model(whole).save_pretrained(folder / "resumed")
    return found


def refusals(folder):
    """Return the messages for what cannot be trained so."""
    found = []
    for kind in ("adafactor", "rows"):
        try:
            if kind == "rows":
                config = TrainingConfig(max_steps=1, cpu=True, show_progress=False, report_to=[])
                model = train_new_rows_only(tiny_model(SIZE), VOCABULARY)
                rows = PackedRows(example, 32)
                UnifiedTrainer(model, rows, Collator(pad_id=0), VOCABULARY, config, OptimizerConfig(), folder)
            else:
                trainer(folder, 1, kind, False, False)
        except ConfigError as error:
            found.append(str(error))
    return found


def shard_on_cpus():
    """Let Accelerate take these CPU processes for ones that FSDP2 serves."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        reshard_after_forward=True,
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )
    begin = AcceleratorState.__init__

    def patched(self, *args, **kwargs):
        begin(self, *args, **{**kwargs, "fsdp_plugin": plugin})
        for state in (AcceleratorState, PartialState):
            state._shared_state["distributed_type"] = DistributedType.FSDP
        AcceleratorState._shared_state["fsdp_plugin"] = plugin

    AcceleratorState.__init__ = patched


def work(rank, port, folder):
    """Do everything as one of the two processes."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
    }  # fmt: skip
    torch.set_num_threads(1)
    results = {}
    try:
        trainer(folder / "plain", 1, *WAYS["lora"])
    except ConfigError as error:
        results["not sharded"] = str(error)
    shard_on_cpus()
    for way in WAYS:
        results[way] = train(folder / way, rank, way)
    results["refused"] = refusals(folder / "refused")
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
