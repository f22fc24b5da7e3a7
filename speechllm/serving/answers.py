"""Errors as OpenAI's clients expect them: a status, and {"error": {message, type, param, code}}.

    raise ApiError(413, "the file is too large", code="too_large", param="file")

What a request did wrong is said in our own words; what went wrong inside is said in the log alone.
"""

from typing import Any

from starlette.responses import JSONResponse

from speechllm.errors import AudioError, CheckpointError, ConfigError, DataError, SpeechLLMError, TaskError
from speechllm.serving.worker import DeadlineError, QueueFullError

RETRY_AFTER_SECONDS = 2
TYPES = {
    401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error", 504: "server_error",
}  # fmt: skip
"By status; all others are the request's fault."


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def api_error(error: BaseException) -> ApiError:
    """Return the answer that an error of the library, or any other, becomes."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        return ApiError(503, str(error), code="overloaded")
    if isinstance(error, DeadlineError):
        return ApiError(504, str(error), code="timeout")
    if isinstance(error, AudioError):
        return ApiError(400, str(error), code="invalid_audio", param="file")
    if isinstance(error, TaskError | ConfigError | DataError):
        return ApiError(400, str(error), code="invalid_value")
    if isinstance(error, CheckpointError):
        return ApiError(400, str(error), code="unsupported")
    if isinstance(error, SpeechLLMError):
        return ApiError(400, str(error))
    return ApiError(500, "the server failed at this request; its log says why", code="internal_error")


def error_response(error: ApiError) -> JSONResponse:
    """Return the error as a response."""
    content: dict[str, Any] = {
        "message": str(error),
        "type": TYPES.get(error.status, "invalid_request_error"),
        "param": error.param,
        "code": error.code,
    }
    headers = {}
    if error.status in (429, 503):
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    if error.status in (408, 413):
        # The rest of the body is not wanted any more.
        headers["connection"] = "close"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": content}, status_code=error.status, headers=headers)
