"""Run the demo: our page under our rules on this machine alone, unless told otherwise.

    serve_demo(page, host="127.0.0.1", port=7860)          # until Ctrl-C

The browser is told (Content-Security-Policy) to fetch nothing from elsewhere; no link through others' servers is made.
"""

import socket
from collections.abc import Awaitable, Callable

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from gradio.themes import Default
from starlette.responses import Response

from speechllm.demo.tokens import STYLE
from speechllm.errors import ConfigError

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
MAX_FILE_BYTES = 25 * 2**20


def demo_app(page: gr.Blocks) -> FastAPI:
    """Return the page as an application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def keep_to_ourselves(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        response.headers["referrer-policy"] = "no-referrer"
        return response

    theme = Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return gr.mount_gradio_app(
        app, page.queue(max_size=32), path="/", theme=theme, css=STYLE, footer_links=[], ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, max_file_size=MAX_FILE_BYTES, show_error=False,
    )  # fmt: skip


def serve_demo(page: gr.Blocks, *, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve until the process is told to stop.

    Raises:
        ConfigError: the port cannot be had.
    """
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(f"cannot listen at {host} port {port}: {error.strerror}; choose another --port") from error
    with listening:
        uvicorn.Server(uvicorn.Config(demo_app(page), log_level="warning", ws="none")).run(sockets=[listening])
