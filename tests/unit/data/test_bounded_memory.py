"""What preparing, tokenising and training hold does not grow with the corpus (in full: benchmarks/memory.py)."""

import tracemalloc

import numpy as np
import pyarrow as pa

from benchmarks.memory import Watch, quickstart, results
from benchmarks.sleeping_tokenizer import SleepingTokenizer
from speechllm.audio import Audio, encode_flac
from speechllm.data.mixture import MixtureComponent, MixtureConfig, load_mixture
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record
from speechllm.data.row_store import CACHE_VARIABLE
from speechllm.data.shards import write_shards
from speechllm.data.tokenize import TokenRow, tokenize_corpus
from tests.support.tiny import NUM_CODES, tiny_processor
from tests.support.token_rows import row_layout

TIMES = 20
SOUND = encode_flac(Audio(0.1 * np.random.default_rng(0).standard_normal(1600).astype(np.float32), 16_000))


def peak(run):
    """Return the bytes that Python, numpy and Arrow held at most."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def growth(run):
    """Return by how many bytes a corpus that is 20 times as large makes the peak higher."""
    run("warm", 1)
    small, large = peak(lambda: run("small", 1)), peak(lambda: run("large", TIMES))
    return large - small, small


def records(count):
    return (Record(f"utterance-{i}", "train", "en", "the red lamp " * 99, SOUND) for i in range(count))


def test_preparing_and_tokenising_hold_one_shard(tmp_path):
    def prepare(name, scale):
        prepare_corpus(records(40 * scale), tmp_path / name, records_per_shard=20)

    def tokenise(name, scale):
        tokenize_corpus(tmp_path / name, SleepingTokenizer(0.0), tmp_path / f"{name}-tokens", records_per_shard=20)

    # Manifests have an entry for each shard, and are held as objects and as text when one is saved.
    allowance = 16_000 * 2 * TIMES
    for run in (prepare, tokenise):
        grown, small = growth(run)
        assert grown < 0.1 * small + allowance, f"{run.__name__} held {grown:,} bytes more than {small:,}"


def test_training_holds_bits_and_an_order(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    processor, generator, count = tiny_processor(semantic=False), np.random.default_rng(0), 1100
    for name, scale in (("warm", 1), ("small", 1), ("large", TIMES)):
        every = generator.integers(NUM_CODES, size=(count * scale, 30))
        rows = (TokenRow(id=f"{i}", split="train", language="en", text="lamp", codes=c) for i, c in enumerate(every))
        write_shards(rows, tmp_path / name, row_layout(per_shard=400))

    def train(name, _):
        config = MixtureConfig(components=[MixtureComponent(tasks="ASR", folder=str(tmp_path / name))])
        mixture = load_mixture(config, processor)
        for i in range(200):
            mixture.example(i)

    unpacking, _ = growth(train)
    opened, small = growth(train)
    # 4 bytes of the order and a quarter of one for each row and, for two batches that are worked on, rounding.
    assert opened < 5 * count * TIMES + 0.1 * small
    assert unpacking < 5 * count * TIMES + 0.1 * small + 2000 * 3 * TIMES


def test_the_benchmark_sees_what_is_held():
    with Watch() as watch:
        held = np.ones(40 * 2**20, np.uint8)
    assert watch.held().private >= 36
    assert held.sum() > 0
    page = results("a machine", "a command", [["train", "1", "2", "3", "4", "5"]], [["1", "2", "3", "4"]])
    assert f"{quickstart().corpus['num_sentences']:,}" in page
