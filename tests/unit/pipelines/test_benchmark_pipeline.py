"""The benchmark of pipelines compares like with like, at the smallest size."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pipeline
from speechllm.audio import encode_flac
from speechllm.data.records import Record
from speechllm.pipelines.system import SpeechSystem
from tests.support.tiny import tiny_checkpoint, tiny_speech


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("benchmark") / "checkpoint")


RECORDS = [
    Record(id=str(i), split="test", language="en", text="good morning", audio=encode_flac(tiny_speech(0.6, seed=i)))
    for i in range(2)
]


def test_pipeline_and_bare_call_say_the_same(folder: Path):
    tasks = pipeline.jobs(str(folder), SpeechSystem.from_pretrained(folder), RECORDS)
    for job in tasks[:2]:
        name, inputs, *spreads = pipeline.overhead(job, 2, 1, time.perf_counter)
        assert (name, inputs, len(spreads)) == (job.name, "2", 3)
    other = pipeline.Job("other", tasks[0].inputs, tasks[0].pipe, lambda given: ["something else"] * len(given))
    with pytest.raises(AssertionError, match="differ"):
        pipeline.overhead(other, 1, 1, time.perf_counter)


def test_long_audio_is_measured_against_single_sentences(folder: Path):
    rows = pipeline.long_audio(str(folder), RECORDS, ((3.0, 2),), time.perf_counter)
    assert [row[1] for row in rows] == ["sentence by sentence", "20 s at most", "by the checkpoint, 16.4 s at most"]
    assert rows[1][3:] == rows[2][3:], "the same pieces"


def test_silence_is_put_around_every_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "SILENCES", ((0.0, -70), (0.5, -45)))
    rows = pipeline.silence_around(str(folder), RECORDS)
    assert [row[:2] for row in rows] == [["0 s", "-70 dB"], ["0.5 s", "-45 dB"]]
    assert all(float(row[2]) >= 0 for row in rows)


def test_long_recordings_have_the_length_that_was_asked_for():
    chosen = pipeline.long_recordings(RECORDS, 4.0, 3)
    assert [len(some) for some in chosen] == [3, 3, 3]
    assert [record.id for some in chosen for record in some] == list("010101010")
    audio = pipeline.joined(chosen[0], seed=0)
    speech, pauses = 3 * 0.6, 2 * np.array(pipeline.PAUSES_SECONDS)
    assert speech + pauses[0] <= audio.duration_seconds <= speech + pauses[1] <= 4.0
