"""Limits on what a client may send and on how slowly: around the application, and on the connection itself.

    app = BodyLimits(app, max_bytes=25 * 2**20, seconds=30.0)              # 413, 408
    protocol = patient_protocol(head_seconds=10.0, write_seconds=30.0)     # uvicorn.Config(http=protocol)

A server that waits for its clients without end can be stopped by a handful of them: by a head that never ends, a body
that comes a byte at a time, an answer that nobody reads. Each has its timeout here.
"""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from speechllm.serving.answers import ApiError, error_response

DRAINED_FACTOR = 4
"So many times the limit is still read (and thrown away), since most clients look for an answer only after sending."


class BodyLimits:
    """An ASGI application that refuses bodies that are too long or come too slowly."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float):
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, self.max_bytes, asyncio.get_running_loop().time() + self.seconds)
        if (_content_length(scope) or 0) > self.max_bytes:
            await body.drain()
            await error_response(_too_long(self.max_bytes))(scope, receive, send)
        else:
            await self.app(scope, body.receive, send)


class _Body:
    def __init__(self, receive: Receive, max_bytes: int, deadline: float):
        self._receive, self._max_bytes, self._deadline = receive, max_bytes, deadline
        self._num_bytes, self._complete = 0, False

    async def receive(self) -> Message:
        """Return the next part, counted and timed; what follows the body (a disconnect) may take its time."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise ApiError(408, "the body did not arrive in time; send it faster", code="upload_timeout") from error
        self._num_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._num_bytes > self._max_bytes:
            await self.drain()
            raise _too_long(self._max_bytes)
        return message

    async def drain(self) -> None:
        """Throw away what still comes, up to a size and to the deadline."""
        try:
            async with asyncio.timeout_at(self._deadline):
                while not self._complete and self._num_bytes <= DRAINED_FACTOR * self._max_bytes:
                    message = await self._receive()
                    self._num_bytes += len(message.get("body", b""))
                    self._complete = not message.get("more_body", False)
        except TimeoutError:
            return


def _content_length(scope: Scope) -> int | None:
    found = dict(scope["headers"]).get(b"content-length")
    # The protocol has refused anything but digits.
    return None if found is None else int(found)


def _too_long(max_bytes: int) -> ApiError:
    return ApiError(413, f"the body is longer than {max_bytes} bytes; send a shorter file", code="too_large")


def patient_protocol(*, head_seconds: float, write_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a limit on waiting for a request's head, and on waiting for a reader."""

    class PatientProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._time_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._time_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_timer = self.loop.call_later(write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._write_timer = _cancelled(self._write_timer)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_timer, self._write_timer = _cancelled(self._head_timer), _cancelled(self._write_timer)
            super().connection_lost(exc)

        def _time_head(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._head_timer = _cancelled(self._head_timer)
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(head_seconds, self.transport.abort)

    return PatientProtocol


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
