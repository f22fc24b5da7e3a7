"""The queue in front of the model: batches of like tasks, nobody's answer to anybody else, nothing without an end."""

import threading
import time

import numpy as np
import pytest

from speechllm.audio import Audio
from speechllm.errors import AudioError, TaskError
from speechllm.pipelines.output import TaskOutput
from speechllm.safety import detect_watermark
from speechllm.segments import TextSegment
from speechllm.serving.worker import DeadlineError, ModelWorker, QueueFullError, Work
from speechllm.tasks import TaskTag
from tests.support.tiny import tiny_speech

ASR, MT, TTS = TaskTag.of("ASR", "en"), TaskTag.of("MT", "en", "fr"), TaskTag.of("TTS", "en")


class Echo:
    """Stands for a system: says each input again, notes its batches, fails on demand, and can be held."""

    def __init__(self):
        self.batches = []
        self.held, self.entered = threading.Event(), threading.Event()
        self.held.set()

    def run(self, tag, inputs, *, voice, consent, watermark, decoding):
        self.batches.append((tag.name, [one if isinstance(one, str) else one.num_samples for one in inputs]))
        self.entered.set()
        assert self.held.wait(20)
        assert consent == (voice is not None)
        if "bad audio" in inputs:
            raise AudioError("bad audio cannot be read")
        if "bug" in inputs:
            raise ZeroDivisionError("a bug")
        texts = [one if isinstance(one, str) else str(one.num_samples) for one in inputs]
        sound = tiny_speech(3.0) if tag.name == "TTS" else None
        return [TaskOutput(tag, {"translation": TextSegment(f"{tag.name} {text}")}, audio=sound) for text in texts]


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def worker(echo):
    made = ModelWorker(echo, max_batch=4, queue_size=8, queue_audio_seconds=100.0, gather_seconds=0.0)
    made.start()
    yield made
    echo.held.set()
    made.stop(20.0)


def submit(worker, *inputs, tag=MT, seconds=20.0, **options):
    return worker.submit(Work(tag, inputs, **options), deadline_seconds=seconds)


def texts(job):
    return [output.text for output in job.future.result(20)]


def hold(echo, worker):
    """Make the model busy with a first job."""
    echo.held.clear()
    first = submit(worker, "first")
    assert echo.entered.wait(20)
    return first


def silence(seconds):
    return Audio(np.zeros(int(seconds * 16_000), np.float32), 16_000)


def test_what_waits_is_worked_on_together_and_kinds_take_turns(echo, worker):
    first = hold(echo, worker)
    jobs = [submit(worker, f"text {i}") for i in range(5)]
    other = submit(worker, silence(1), tag=ASR)
    echo.held.set()
    assert [texts(job) for job in jobs] == [[f"MT text {i}"] for i in range(5)]
    assert texts(other) == ["ASR 16000"]
    assert texts(first) == ["MT first"]
    assert echo.batches == [
        ("MT", ["first"]), ("MT", ["text 0", "text 1", "text 2", "text 3"]), ("ASR", [16_000]), ("MT", ["text 4"]),
    ]  # fmt: skip


def test_a_long_recording_holds_nobody_up(echo, worker):
    first = hold(echo, worker)
    long = submit(worker, *(f"piece {i}" for i in range(9)))
    short = submit(worker, "short")
    echo.held.set()
    assert texts(short) == ["MT short"]
    assert texts(long) == [f"MT piece {i}" for i in range(9)]
    assert texts(first)
    assert echo.batches[1] == ("MT", ["piece 0", "short", "piece 1", "piece 2"])


def test_one_bad_request_fails_alone(echo, worker, caplog):
    first = hold(echo, worker)
    good, bad, bug, more = (submit(worker, text) for text in ("good", "bad audio", "bug", "more"))
    echo.held.set()
    assert texts(good) == ["MT good"]
    assert texts(more) == ["MT more"]
    assert texts(first)
    with pytest.raises(AudioError, match="cannot be read"):
        bad.future.result(20)
    with pytest.raises(ZeroDivisionError):
        bug.future.result(20)
    assert "a bug" in caplog.text
    assert "cannot be read" not in caplog.text


def test_the_queue_is_bounded_in_requests_and_in_audio(echo, worker):
    hold(echo, worker)
    kept = [submit(worker, "one") for _ in range(7)]
    with pytest.raises(QueueFullError, match="8 requests"):
        submit(worker, "one too many")
    with pytest.raises(QueueFullError):
        worker.check_room()
    echo.held.set()
    assert [texts(job) for job in kept] == [["MT one"]] * 7
    worker.check_room()


def test_audio_that_waits_is_bounded(echo, worker):
    hold(echo, worker)
    submit(worker, silence(60), tag=ASR)
    with pytest.raises(QueueFullError, match="60 s of audio"):
        submit(worker, silence(60), tag=ASR)
    submit(worker, silence(30), tag=ASR)
    assert worker.load() == (3, 90.0)


def test_what_nobody_waits_for_is_never_begun(echo, worker):
    first = hold(echo, worker)
    late, gone, kept = submit(worker, "late", seconds=0.0), submit(worker, "gone"), submit(worker, "kept")
    gone.future.cancel()
    echo.held.set()
    assert texts(kept) == ["MT kept"]
    assert texts(first)
    with pytest.raises(DeadlineError):
        late.future.result(20)
    assert echo.batches == [("MT", ["first"]), ("MT", ["kept"])]
    assert worker.load() == (0, 0.0)


def test_stopping_ends_what_runs_and_refuses_what_waits(echo, worker):
    first = hold(echo, worker)
    waiting = submit(worker, "waiting")
    stopper = threading.Thread(target=worker.stop, args=(20.0,))
    stopper.start()
    while worker.is_alive:
        time.sleep(0.001)
    echo.held.set()
    stopper.join(20)
    assert texts(first) == ["MT first"]
    for refused in (waiting.future.result, lambda timeout: submit(worker, "new")):
        with pytest.raises(QueueFullError, match="stopping"):
            refused(20)


def test_all_speech_is_marked_and_voices_keep_apart(echo, worker, monkeypatch):
    first = hold(echo, worker)
    plain = submit(worker, "plain", tag=TTS)
    voiced = submit(worker, "voiced", tag=TTS, voice=silence(1))
    echo.held.set()
    for job in (plain, voiced):
        (output,) = job.future.result(20)
        assert output.is_watermarked
        assert detect_watermark(output.audio).present
    assert texts(first)
    assert [names for _, names in echo.batches] == [["first"], ["plain"], ["voiced"]]


def test_work_without_inputs_is_refused(worker):
    with pytest.raises(TaskError, match="no input"):
        submit(worker)


def test_many_threads_get_their_own_answers(worker):
    failures = []

    def ask(number):
        for turn in range(20):
            name = f"{number} {turn}"
            tag = (MT, TaskTag.of("MT", "fr", "en"))[turn % 2]
            while True:
                try:
                    job = submit(worker, name, f"{name} again", tag=tag)
                    break
                except QueueFullError:
                    time.sleep(0.001)
            if texts(job) != [f"MT {name}", f"MT {name} again"]:
                failures.append(name)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []
