"""Tokenising on Ray gives the bytes of the local engine, whatever dies on the way. One cluster serves all tests."""

import builtins
import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from speechllm.audio import Audio, encode_flac
from speechllm.cli.main import app
from speechllm.data.prepare import prepare_corpus
from speechllm.data.ray_pool import RayConfig, start_cluster
from speechllm.data.ray_tokenize import plan_stretches, tokenize_on_ray
from speechllm.data.records import Record, Translation
from speechllm.data.shards import Manifest, ShardEntry
from speechllm.data.tokenize import tokenize_corpus
from speechllm.errors import ConfigError, DataError, MissingDependencyError
from tests.support.loud_tokenizer import DeadlyTokenizer, LoudTokenizer, OtherTokenizer, working
from tests.support.tiny import tiny_semantic_tokenizer

TWO = RayConfig(num_workers=2)
DRIVER = """
import functools, sys
from pathlib import Path
import ray
from speechllm.data.ray_pool import RayConfig
from speechllm.data.ray_tokenize import tokenize_on_ray
from tests.support.loud_tokenizer import LoudTokenizer

corpus, out, workers, address = sys.argv[1:]
ray.init(address=address, logging_level="error", log_to_driver=False)
load = functools.partial(LoudTokenizer, Path(workers), 0.02)
tokenize_on_ray(corpus, load, out, RayConfig(num_workers=2), records_per_shard=4)
"""


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = start_cluster(num_cpus=2, object_store_memory=80 * 2**20, logging_level="error", log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """57 records in shards of 6, two splits, with one that fails, so that stretches and shards do not fall together."""

    def noise(i):
        return encode_flac(Audio(0.1 * np.random.default_rng(i).standard_normal(3000 + 100 * i), 16_000))

    records = [
        Record(
            f"r{i}", "test" if i % 4 == 3 else "train", "en", f"text {i}", b"broken" if i == 5 else noise(i),
            translation=Translation("fr", f"texte {i}", noise(100 + i)) if i % 3 else None,
        )
        for i in range(57)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("ray") / "corpus"
    report = prepare_corpus(records, folder, records_per_shard=6)
    assert len(report.failures) == 1
    return folder


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory):
    """What the local engine writes."""
    folder = tmp_path_factory.mktemp("local")
    tokenize_corpus(corpus, LoudTokenizer(tmp_path_factory.mktemp("pids"), 0), folder / "tokens", records_per_shard=4)
    return contents(folder / "tokens")


@pytest.fixture
def workers(tmp_path):
    (tmp_path / "workers").mkdir()
    return tmp_path / "workers"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_workers_write_what_one_process_writes(cluster, corpus, expected, workers, tmp_path):
    load = functools.partial(LoudTokenizer, workers, 0.005)
    done = []
    report = tokenize_on_ray(corpus, load, tmp_path / "out", TWO, records_per_shard=4, progress=done.append)
    assert contents(tmp_path / "out") == expected
    assert len(working(workers)) == 2
    assert done == sorted(done)
    assert done[-1] == sum(report.num_rows.values()) == 56
    # Once more: everything is there, and looked at only.
    tokenize_on_ray(corpus, load, tmp_path / "out", TWO, records_per_shard=4)
    assert contents(tmp_path / "out") == expected


def test_workers_compete_like_any_process(cluster):
    """With Ray's own niceness of 15 they starve on a machine that does other things."""
    nice = cluster.remote(num_cpus=1)(lambda: os.nice(0))
    assert cluster.get(nice.remote()) == os.nice(0)


def test_a_killed_worker_loses_and_doubles_nothing(cluster, corpus, expected, workers, tmp_path):
    killed = []

    def kill(done):
        # Whoever is at work when a third, and two thirds, are done.
        if len(killed) < 2 and done >= 19 * (len(killed) + 1):
            victim = next(pid for pid in reversed(working(workers)) if pid not in killed)
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    load = functools.partial(LoudTokenizer, workers, 0.02)
    tokenize_on_ray(corpus, load, tmp_path / "out", TWO, records_per_shard=4, progress=kill)
    assert len(killed) == 2
    assert set(killed) < set(working(workers)), "others came in their place"
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_killed_driver_is_continued_by_either_engine(cluster, corpus, expected, workers, tmp_path):
    address = cluster.get_runtime_context().gcs_address
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(corpus), str(out), str(workers), address])
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list(out.glob("*.parquet"))) < 4:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before the kill"
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in contents(out).items():
        (copy / name).write_bytes(content)

    tokenize_on_ray(corpus, functools.partial(LoudTokenizer, workers, 0), out, TWO, records_per_shard=4)
    tokenize_corpus(corpus, LoudTokenizer(workers, 0), copy, records_per_shard=4)
    assert contents(out) == contents(copy) == expected
    # All but perhaps the shard that was being written when the kill came are still the old files.
    assert sum((out / name).stat().st_mtime_ns != when for name, when in kept.items()) <= 1


def test_a_record_that_kills_every_worker_is_named_and_the_rest_kept(cluster, corpus, expected, workers, tmp_path):
    load = functools.partial(DeadlyTokenizer, workers, 0)
    config = RayConfig(num_workers=1, max_attempts=2)
    with pytest.raises(DataError, match=r"2 workers died over train-00003\.parquet \(from train-00002\.parquet\): "):
        tokenize_on_ray(corpus, load, tmp_path / "out", config, records_per_shard=4)
    kept = contents(tmp_path / "out")
    assert kept["train-00000.parquet"] == expected["train-00000.parquet"]
    assert "train-00003.parquet" not in kept


def test_what_a_worker_finds_wrong_is_one_line_here(cluster, corpus, workers, tmp_path):
    with pytest.raises(DataError, match="every machine needs the same one"):
        tokenize_on_ray(corpus, functools.partial(OtherTokenizer, workers, 0), tmp_path / "out", TWO)


def test_more_than_the_cluster_has_is_refused_at_once(cluster, corpus, workers, tmp_path):
    load = functools.partial(LoudTokenizer, workers, 0)
    with pytest.raises(ConfigError, match=r"a worker needs 1 CPUs and 1 GPUs, the cluster has 2 and 0"):
        tokenize_on_ray(corpus, load, tmp_path / "out", RayConfig(gpus_per_worker=1.0))


@pytest.mark.slow
def test_the_command_writes_the_same_with_either_engine(cluster, corpus, tmp_path):
    tiny_semantic_tokenizer().save_pretrained(tmp_path / "semantic")
    for engine in (["local"], ["ray", "--workers", "2"]):
        command = ["tokenize", str(corpus), str(tmp_path / "semantic"), str(tmp_path / engine[0])]
        result = CliRunner().invoke(app, [*command, "--records-per-shard", "10", "--engine", *engine])
        assert result.exit_code == 0, result.output
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")


def test_without_ray_one_line_says_how_to_get_it(corpus, workers, tmp_path, monkeypatch):
    imported = builtins.__import__

    def without_ray(name, *arguments):
        if name == "ray":
            raise ImportError(name)
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(MissingDependencyError, match=r"pip install 'speechllm\[ray\]'"):
        tokenize_on_ray(corpus, functools.partial(LoudTokenizer, workers, 0), tmp_path / "out", TWO)


def test_stretches_hold_every_row_once_in_order():
    rows = {"train": (4, 3, 0, 4), "test": (2,)}
    shards = tuple(
        ShardEntry(f"{split}-{i}", split, count, "", "")
        for split, counts in rows.items()
        for i, count in enumerate(counts)
    )
    stretches = plan_stretches(Manifest("records", "f", 4, {}, True, shards), 5)
    assert [(s.name, s.num_rows) for s in stretches] == [
        ("train-00000.parquet", 5), ("train-00001.parquet", 5), ("train-00002.parquet", 1), ("test-00000.parquet", 2)
    ]  # fmt: skip
    found = [(entry.file, row) for s in stretches for entry, start, stop in s.parts for row in range(start, stop)]
    assert found == [(shard.file, row) for shard in shards for row in range(shard.rows)]


@pytest.mark.parametrize("wrong", [{"num_workers": 0}, {"gpus_per_worker": -1.0}, {"max_attempts": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=rf"{next(iter(wrong))} = .*, expected"):
        RayConfig(**wrong)
