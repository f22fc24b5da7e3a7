"""A server with a tiny checkpoint on loopback, in this process, and OpenAI's own client for it."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import uvicorn

from speechllm.audio import Audio
from speechllm.pipelines.system import SpeechSystem
from speechllm.serving.app import make_app
from speechllm.serving.config import RegisteredVoice, ServeConfig
from speechllm.serving.server import uvicorn_config
from tests.support.tiny import tiny_checkpoint, tiny_speech


class RunningServer:
    """A server in a thread of this process."""

    def __init__(self, app: Any, config: ServeConfig, api_key: str | None = None):
        self.config, self.api_key = config, api_key
        self.server = uvicorn.Server(uvicorn_config(app, config))
        self.state = app.state.server if hasattr(app, "state") else None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.run(self.server.serve(sockets=[self._socket]))

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=self.api_key or "none", max_retries=0, **options
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive(), "the server did not stop"


@contextmanager
def running(system: Any, *, voices: Any = None, api_key: str | None = None, **limits: Any) -> Iterator[RunningServer]:
    config = ServeConfig(**{"name": "tiny", "shutdown_seconds": 10.0, **limits})
    server = RunningServer(make_app(system, config, voices=voices, api_key=api_key), config, api_key)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> SpeechSystem:
    return SpeechSystem.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("serving") / "tiny", acoustic=True))


@pytest.fixture(scope="session")
def voice() -> RegisteredVoice:
    return RegisteredVoice("anna", Audio(tiny_speech(3.0, pitch=220.0).samples, 16_000), "she agreed")


@pytest.fixture(scope="session")
def server(system: SpeechSystem, voice: RegisteredVoice) -> Iterator[RunningServer]:
    with running(system, voices={"anna": voice}, max_audio_seconds=120.0, max_upload_bytes=4_000_000) as started:
        yield started
