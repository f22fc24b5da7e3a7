"""Clients as they are: many at once, too slow, gone, too large, without the key; and a server that is killed."""

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import soundfile

from speechllm.audio import encode_flac
from speechllm.pipelines.system import SpeechSystem
from speechllm.serving.config import ServeConfig
from tests.support.tiny import tiny_checkpoint, tiny_speech
from tests.unit.serving.conftest import RunningServer, running

HEAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"


class Slow(SpeechSystem):
    """A system that waits before it answers."""

    def __init__(self, system, seconds):
        super().__init__(system.checkpoint)
        self._seconds = seconds

    def run(self, *args, **kwargs):
        time.sleep(self._seconds)
        return super().run(*args, **kwargs)


def test_no_answer_is_crossed_or_lost(server, system):
    recordings = [encode_flac(tiny_speech(0.4 + 0.05 * i, seed=i)) for i in range(8)]
    wanted = [system.transcribe([one])[0].text for one in recordings]
    sentences = [f"turn on the light number {i}" for i in range(4)]
    spoken = [system.speak([text])[0].audio.samples for text in sentences]
    assert len(set(wanted)) > 5, "answers must differ, or a crossed one would not be seen"

    def ask(number):
        with server.client() as client:
            for turn in range(3):
                i = (number + turn) % len(recordings)
                text = client.audio.transcriptions.create(model="tiny", file=("a.flac", recordings[i])).text
                assert text == wanted[i]
            i = number % len(sentences)
            content = client.audio.speech.create(
                model="tiny", input=sentences[i], voice="default", response_format="wav"
            ).read()
            samples = soundfile.read(io.BytesIO(content), dtype="float32")[0]
            assert len(samples) == len(spoken[i])
            assert np.abs(samples - spoken[i]).max() < 1e-3
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    worker = server.state.worker
    assert worker.num_batches < worker.num_inputs, "requests that wait together are worked on together"


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_an_upload_that_is_too_long_gets_413(server, announced):
    content = bytes(5_000_000)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    parts = [head, content, b"\r\n--x--\r\n"]
    with server.client() as client:
        answer = client._client.post(
            f"http://127.0.0.1:{server.port}/v1/audio/transcriptions",
            content=b"".join(parts) if announced else iter(parts),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_the_queue_refuses_with_retry_after(system):
    with running(Slow(system, 1.0), queue_size=1, max_batch=1) as server, server.client() as client:
        busy = threading.Thread(target=lambda: client.audio.speech.create(model="tiny", input="one", voice="default"))
        busy.start()
        while server.state.worker.load()[0] == 0:
            time.sleep(0.005)
        with pytest.raises(openai.InternalServerError) as caught:
            client.audio.speech.create(model="tiny", input="two", voice="default")
        busy.join(20)
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert caught.value.body["code"] == "overloaded"


def test_an_answer_that_takes_too_long_gets_504(system):
    with running(Slow(system, 1.0), deadline_seconds=0.2) as server, server.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.audio.speech.create(model="tiny", input="one", voice="default")
        assert caught.value.status_code == 504


def test_work_for_a_client_that_left_is_dropped(system):
    with running(Slow(system, 0.5), max_batch=1) as server:
        body = b'{"model":"tiny","input":"hello","voice":"default"}'
        head = b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        worker = server.state.worker
        while worker.load()[0] < 3:
            time.sleep(0.005)
        for client in clients:
            client.close()
        while worker.load()[0]:
            time.sleep(0.005)
        time.sleep(0.1)
    assert worker.num_inputs <= 1


def until_closed(client):
    """Return what the server sends before it closes the connection."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_slow_clients_time_out_and_disturb_nobody(system):
    with (
        running(system, head_seconds=0.5, upload_seconds=0.5, write_seconds=0.5) as server,
        server.connect() as silent,
        server.connect() as endless,
        server.connect() as trickling,
        server.client() as honest,
    ):
        endless.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ")
        trickling.sendall(HEAD + b"content-length: 1000\r\n\r\n--x\r\n")
        assert honest.audio.transcriptions.create(model="tiny", file=("a.flac", encode_flac(tiny_speech()))).text
        assert until_closed(silent) == b""
        assert until_closed(endless) == b""
        assert b" 408 " in until_closed(trickling).splitlines()[0]


def test_a_client_that_reads_nothing_is_cut_off():
    config = ServeConfig(write_seconds=0.3, shutdown_seconds=5.0)
    ended = threading.Event()

    async def endless(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not ended.is_set():
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            await asyncio.sleep(0)

    server = RunningServer(endless, config)
    with server.connect() as reader:
        reader.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        limit = time.monotonic() + 20
        while not server.server.server_state.connections:
            time.sleep(0.01)
        while server.server.server_state.connections and time.monotonic() < limit:
            time.sleep(0.05)
        assert not server.server.server_state.connections, "the connection is still there"
    ended.set()
    server.stop()


def test_the_key_is_asked_for(system):
    with running(system, api_key="secret") as server:
        with server.client() as client:
            assert client.models.list().data
        with server.client().with_options(api_key="guess") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.audio.speech.create(model="tiny", input="hello", voice="default")
            assert caught.value.body["code"] == "invalid_api_key"
            assert client._client.get(f"http://127.0.0.1:{server.port}/health").status_code == 200


def test_requests_under_way_are_answered_before_the_server_stops(system):
    with running(Slow(system, 0.5)) as server, server.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.audio.speech.create, model="tiny", input="one", voice="default")
        while server.state.worker.load()[0] == 0:
            time.sleep(0.005)
        server.server.should_exit = True
        assert len(answer.result(20).read()) > 0


def start_process(checkpoint, port):
    process = subprocess.Popen(
        [sys.executable, "-m", "speechllm.cli", "serve", str(checkpoint), "--port", str(port), "name=tiny"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for line in process.stderr:
        if found := re.search(r"http://[\d.]+:(\d+)/v1", line):
            return process, int(found[1])
    raise AssertionError(f"the server ended with {process.wait()}")


@pytest.mark.slow
def test_a_killed_server_is_started_again_and_answers_the_same(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    recording, answers, port = encode_flac(tiny_speech()), [], 0
    for end in (signal.SIGKILL, signal.SIGTERM):
        process, port = start_process(checkpoint, port)
        try:
            with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
                answers.append(client.audio.transcriptions.create(model="tiny", file=("a.flac", recording)).text)
                process.send_signal(end)
                code = process.wait(30)
                with pytest.raises(openai.APIConnectionError):
                    client.models.list()
        finally:
            process.kill()
            rest = process.stderr.read()
            process.stderr.close()
        assert code == (-signal.SIGKILL if end == signal.SIGKILL else 0), rest
    assert "1 requests: 1 ok" in rest
    assert answers[0] == answers[1]
