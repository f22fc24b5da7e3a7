"""kill -9 in the middle of preparing and tokenising: the next run ends with the bytes of an undisturbed one."""

import json
import signal
import subprocess
import sys
import time

import pytest

from speechllm.data.shards import MANIFEST_FILE

PREPARE = """
import sys, time
import numpy as np
from speechllm.audio import Audio, encode_flac
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation

def records():
    for i in range(60):
        time.sleep({pause})
        audio = encode_flac(Audio(0.1 * np.random.default_rng(i).standard_normal(3000 + 7 * i), 16000))
        content = b"broken" if i in (7, 31) else audio
        yield Record(f"r{{i}}", "test" if i % 5 == 0 else "train", "en", f"text {{i}}", content,
                     translation=Translation("fr", f"texte {{i}}", audio))

report = prepare_corpus(records(), sys.argv[1], records_per_shard=6)
assert len(report.failures) == 2 and sum(report.num_records.values()) == 58, report
"""

FILTER = """
import json, sys, time
from pathlib import Path
import numpy as np
from speechllm.audio import Audio, encode_flac
from speechllm.data.filtering import prepare_filtered
from speechllm.data.filters import make_filters
from speechllm.data.records import Record

def records():
    for i in range(60):
        time.sleep({pause})
        audio = encode_flac(Audio(0.1 * np.random.default_rng(i % 50).standard_normal(3000 + 7 * (i % 50)), 16000))
        yield Record(f"r{{i}}", "test" if i % 5 == 0 else "train", "en", f"text {{i % 50}}", audio, f"s{{i % 7}}")

filters = make_filters(["duration=0.1:0.205", "duplicates"])
corpus, report = prepare_filtered(records, sys.argv[1], filters, records_per_shard=3)
assert report.seen == 60 == report.kept + sum(part.count for part in report.dropped), report
"""

TOKENIZE = """
import sys, time
from speechllm.data.tokenize import tokenize_corpus
from speechllm.tokenizers.fake import FakeSemanticTokenizer

class Slow(FakeSemanticTokenizer):
    def encode(self, audios):
        time.sleep({pause} * len(audios))
        return super().encode(audios)

tokenize_corpus(sys.argv[2], Slow(16), sys.argv[1], batch_size=4, records_per_shard=6)
"""


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run(code, *arguments):
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


def kill_when(code, folder, num_shards, *arguments):
    """Start `code`, kill it once it has finished `num_shards` shards, and return whether that was in time."""
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), *map(str, arguments)])
    deadline = time.monotonic() + 60
    while process.poll() is None and len(list(folder.glob("*.parquet"))) < num_shards:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prepare", "filter", "tokenize"])
def test_a_killed_run_continues_and_loses_nothing(tmp_path, stage):
    arguments = []
    if stage == "tokenize":
        run(PREPARE.format(pause=0), tmp_path / "corpus")
        arguments = [tmp_path / "corpus"]
    code = {"prepare": PREPARE, "filter": FILTER, "tokenize": TOKENIZE}[stage]
    run(code.format(pause=0), tmp_path / "whole", *arguments)
    # Twice at different places: the second run is killed while it continues the first.
    for num_shards in (2, 6):
        assert kill_when(code.format(pause=0.01), tmp_path / "parts", num_shards, *arguments)
        assert not json.loads((tmp_path / "parts" / MANIFEST_FILE).read_text())["complete"]
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.parquet")}
    run(code.format(pause=0), tmp_path / "parts", *arguments)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    # All but perhaps the shard that was being written when the kill came are still the old files.
    rewritten = [name for name, when in kept.items() if (tmp_path / "parts" / name).stat().st_mtime_ns != when]
    assert len(kept) >= 6
    assert len(rewritten) <= 1
