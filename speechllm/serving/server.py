"""Run the application: listen, log figures, and stop without losing what is under way.

    serve(system, ServeConfig(port=8000), voices={}, api_key=None)       # until SIGTERM or Ctrl-C

After SIGTERM no connection is taken, requests under way are answered (up to `shutdown_seconds`), then the model's
thread ends. Nothing is kept on disk: a server that was killed is started again, and that is all.
"""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Mapping

import uvicorn

from speechllm.errors import ConfigError
from speechllm.pipelines.system import SpeechSystem
from speechllm.serving.app import AudioServer, make_app
from speechllm.serving.config import RegisteredVoice, ServeConfig
from speechllm.serving.limits import patient_protocol

logger = logging.getLogger(__name__)


def serve(
    system: SpeechSystem,
    config: ServeConfig,
    *,
    voices: Mapping[str, RegisteredVoice] | None = None,
    api_key: str | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve until the process is told to stop.

    Args:
        system: a checkpoint; only the server may use it.
        config: limits, host and port.
        voices: that requests may name.
        api_key: that requests must carry, or None.
        started: called with the address once connections are taken.

    Raises:
        ConfigError: the port cannot be had.
    """
    app = make_app(system, config, voices=voices, api_key=api_key)
    listening = _listen(config.host, config.port)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    announce = started or (lambda address: None)
    server = _Announced(uvicorn_config(app, config), lambda: announce(f"http://{shown}:{port}"))
    stop = threading.Event()
    reporter = threading.Thread(target=_report, args=(app.state.server, config.log_seconds, stop), daemon=True)
    reporter.start()
    try:
        if threading.current_thread() is threading.main_thread():
            # uvicorn raises the signal again when all is done; a stop that was asked for is no death.
            signal.signal(signal.SIGTERM, lambda number, frame: None)
        server.run(sockets=[listening])
    finally:
        stop.set()
        reporter.join()
        listening.close()


def uvicorn_config(app: object, config: ServeConfig) -> uvicorn.Config:
    """Return uvicorn's settings: our timeouts and limits, and nothing that says or trusts more than needed."""
    return uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType] - an ASGI application
        http=patient_protocol(head_seconds=config.head_seconds, write_seconds=config.write_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=config.max_connections,
        timeout_graceful_shutdown=max(int(config.shutdown_seconds), 1),
    )


class _Announced(uvicorn.Server):
    """Says when connections are taken."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]):
        super().__init__(config)
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._announce()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        raise ConfigError(f"cannot listen at {host} port {port}: {error.strerror}; choose another --port") from error


def _report(server: AudioServer, seconds: float, stop: threading.Event) -> None:
    """Log the figures now and then (if there is news), and once at the end."""
    seen = 0
    while True:
        is_over = stop.wait(seconds)
        if server.figures.num_requests != seen or is_over:
            seen = server.figures.num_requests
            logger.info("%s", server.figures.line(server.worker))
        if is_over:
            return
