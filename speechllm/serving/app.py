"""OpenAI's HTTP interface for audio, over one checkpoint.

    app = make_app(system, ServeConfig(name="quickstart"), voices={})
    uvicorn.run(app)                       # or speechllm.serving.server.serve, which adds timeouts and a shutdown

    POST /v1/audio/transcriptions    file, model, language, response_format, temperature
    POST /v1/audio/translations      the same; language: spoken, to: wanted (both ours)
    POST /v1/audio/speech            model, input, voice, response_format; language (ours)
    GET  /v1/models  /v1/models/{id}  /health

Fields of the interface that this server cannot honour are refused by name, not ignored. Speech carries the watermark.
(https://platform.openai.com/docs/api-reference/audio; there is no streaming of transcripts.)
"""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from speechllm.audio import Audio
from speechllm.errors import SpeechLLMError, UntrainedError
from speechllm.generation.decoding_config import CandidatesConfig, DecodingConfig
from speechllm.pipelines.output import TaskOutput
from speechllm.pipelines.system import TEXT_TRANSLATIONS, SpeechSystem
from speechllm.serving.answers import ApiError, api_error, error_response
from speechllm.serving.config import RegisteredVoice, ServeConfig
from speechllm.serving.figures import Figures
from speechllm.serving.limits import BodyLimits
from speechllm.serving.requests import SpeechRequest, TranscriptRequest, read_speech_request, read_transcript_request
from speechllm.serving.speech import MEDIA_TYPES, STREAMED, SpeechStream, encode_speech, join_speech, split_sentences
from speechllm.serving.transcripts import Transcript, TranscriptSegment, write_transcript
from speechllm.serving.uploads import Piece, Upload, read_upload
from speechllm.serving.worker import DeadlineError, ModelWorker, Work
from speechllm.tasks import TaskTag

logger = logging.getLogger(__name__)

DECODERS = 2
"Uploads decoded at the same time."
CHUNK_BYTES = 2**16
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class AudioServer:
    """The handlers, and what they share."""

    def __init__(
        self, system: SpeechSystem, config: ServeConfig, voices: Mapping[str, RegisteredVoice], api_key: str | None
    ):
        self.system, self.config, self.voices, self.api_key = system, config, voices, api_key
        self.figures = Figures()
        self.started = int(time.time())
        self.worker = ModelWorker(
            system,
            max_batch=config.max_batch,
            queue_size=config.queue_size,
            queue_audio_seconds=config.queue_audio_seconds,
            gather_seconds=config.gather_seconds,
        )
        self.decoders = anyio.CapacityLimiter(DECODERS)

    async def transcribe(self, request: Request) -> Response:
        """Answer POST /v1/audio/transcriptions."""
        self.worker.check_room()
        async with _form(request) as form:
            wanted = read_transcript_request(form, self.config, translate=False)
            content = await _content(form)
        return await self._transcript(request, wanted, content, self._tag(("ASR",), wanted.language))

    async def translate(self, request: Request) -> Response:
        """Answer POST /v1/audio/translations."""
        self.worker.check_room()
        async with _form(request) as form:
            wanted = read_transcript_request(form, self.config, translate=True)
            content = await _content(form)
        tag = self._tag(TEXT_TRANSLATIONS, wanted.language, wanted.to)
        return await self._transcript(request, wanted, content, tag)

    async def speak(self, request: Request) -> Response:
        """Answer POST /v1/audio/speech: the first sentence decides the status, the others follow as they are made."""
        self.worker.check_room()
        self.system.sound_parts()
        wanted = read_speech_request(await _json(request), self.config, self.voices)
        self._tag(("TTS",), wanted.language)
        sentences = split_sentences(wanted.text)
        first = await self._say(request, wanted, sentences[0], None, 0.0)
        media = MEDIA_TYPES[wanted.format]
        if len(sentences) == 1 or wanted.format not in STREAMED:
            audio = first
            if len(sentences) > 1:
                audio = join_speech([first, *[more async for more in self._rest(request, wanted, sentences, first)]])
            content = await anyio.to_thread.run_sync(encode_speech, audio, wanted.format, limiter=self.decoders)
            return StreamingResponse(_chunks(content), media_type=media)
        return StreamingResponse(self._streamed(request, wanted, sentences, first), media_type=media)

    def _tag(self, ways: Sequence[str], source: str, target: str | None = None) -> TaskTag:
        """Return how a request is answered; what the model was not trained for is the operator's to allow."""
        try:
            return self.system.trained_tag(ways, source, target)
        except UntrainedError as error:
            raise ApiError(400, error.why, code="untrained", param="language") from error

    async def _streamed(
        self, request: Request, wanted: SpeechRequest, sentences: list[str], first: Audio
    ) -> AsyncIterator[bytes]:
        stream = SpeechStream(wanted.format)
        yield stream.push(first)
        async for audio in self._rest(request, wanted, sentences, first):
            yield stream.push(audio)

    async def _rest(
        self, request: Request, wanted: SpeechRequest, sentences: list[str], first: Audio
    ) -> AsyncIterator[Audio]:
        """Yield the later sentences, in the voice of the request or else of the first sentence."""
        said = first.duration_seconds
        for sentence in sentences[1:]:
            audio = await self._say(request, wanted, sentence, first, said)
            said += audio.duration_seconds
            yield audio

    async def _say(
        self, request: Request, wanted: SpeechRequest, sentence: str, drawn: Audio | None, start_seconds: float
    ) -> Audio:
        voice = wanted.voice.audio if wanted.voice is not None else drawn
        candidates = CandidatesConfig(count=self.config.candidates) if self.config.candidates > 1 else None
        work = Work(
            TaskTag.of("TTS", wanted.language), [sentence], DecodingConfig(candidates=candidates), voice, start_seconds
        )
        (output,) = await self._result(request, work)
        if output.audio is None:
            raise ApiError(422, f"the model wrote no speech for {sentence!r}", code="no_speech", param="input")
        return output.audio

    async def _transcript(self, request: Request, wanted: TranscriptRequest, content: bytes, tag: TaskTag) -> Response:
        upload = await anyio.to_thread.run_sync(self._read, content, limiter=self.decoders)
        work = Work(tag, [piece.audio for piece in upload.pieces], wanted.decoding)
        outputs = await self._result(request, work)
        segments = [_segment(piece, output) for piece, output in zip(upload.pieces, outputs, strict=True)]
        written, media = write_transcript(
            wanted.format,
            Transcript(
                "translate" if wanted.to else "transcribe",
                tag.output_language(tag.targets[-1]),
                upload.duration_seconds,
                segments,
                wanted.decoding.text.temperature,
            ),
        )
        return Response(written, media_type=media)

    def _read(self, content: bytes) -> Upload:
        return read_upload(
            content,
            rate=self.system.semantic_tokenizer().sample_rate,
            longest_piece=self.system.longest_piece_seconds,
            max_seconds=self.config.max_audio_seconds,
            find_pauses=self.system.find_pauses,
        )

    async def _result(self, request: Request, work: Work) -> list[TaskOutput]:
        """Wait for the model, no longer than the deadline or than the client does."""
        job = self.worker.submit(work, deadline_seconds=self.config.deadline_seconds)
        answer = asyncio.wrap_future(job.future)
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait(
                (answer, gone), timeout=self.config.deadline_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if answer.done():
                return answer.result()
            if gone.done():
                raise ApiError(499, "the client has gone", code="client_gone")
            raise DeadlineError(f"the answer was not there within {self.config.deadline_seconds:g} s")
        finally:
            gone.cancel()
            # If nobody waits any more, the worker drops what it has not begun.
            answer.cancel()

    async def models(self, request: Request) -> Response:
        """Answer GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """Answer GET /v1/models/{id}."""
        name = request.path_params["model"]
        if name != self.config.name:
            raise ApiError(
                404,
                f"there is no model {name!r} here, only {self.config.name!r}",
                code="model_not_found",
                param="model",
            )
        return JSONResponse(self._model())

    async def health(self, request: Request) -> Response:
        """Answer GET /health: 503 once the model's thread has ended."""
        jobs, waiting = self.worker.load()
        alive = self.worker.is_alive
        content = {
            "status": "ok" if alive else "stopping",
            "open_requests": jobs,
            "open_audio_seconds": round(waiting, 1),
        }
        return JSONResponse(content, status_code=200 if alive else 503)

    def _model(self) -> dict[str, Any]:
        return {"id": self.config.name, "object": "model", "created": self.started, "owned_by": "speechllm"}

    def check_key(self, request: Request) -> None:
        """Raise unless the request carries the key, if one is set."""
        if self.api_key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.api_key.encode()):
            raise ApiError(
                401, "the API key is missing or wrong; send 'Authorization: Bearer KEY'", code="invalid_api_key"
            )


def make_app(
    system: SpeechSystem,
    config: ServeConfig,
    *,
    voices: Mapping[str, RegisteredVoice] | None = None,
    api_key: str | None = None,
) -> FastAPI:
    """Return the application; its model thread runs from startup to shutdown.

    Args:
        system: a checkpoint; from now on only the application may use it.
        config: limits.
        voices: that requests may name (`load_voices`).
        api_key: that requests must carry, or None.
    """
    server = AudioServer(system, config, voices or {}, api_key)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.worker.start()
        yield
        await anyio.to_thread.run_sync(server.worker.stop, config.shutdown_seconds)

    # No pages that would fetch scripts from elsewhere.
    app = FastAPI(title="speechllm", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.server = server
    routes: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/audio/transcriptions", server.transcribe),
        ("POST", "/v1/audio/translations", server.translate),
        ("POST", "/v1/audio/speech", server.speak),
        ("GET", "/v1/models", server.models),
        ("GET", "/v1/models/{model:path}", server.model),
        ("GET", "/health", server.health),
    ]
    for method, path, handler in routes:
        app.router.add_route(path, _guarded(server, handler, is_public=path == "/health"), methods=[method])
    app.add_exception_handler(HTTPException, _plain_http_error)
    app.add_middleware(BodyLimits, max_bytes=config.max_upload_bytes, seconds=config.upload_seconds)
    return app


def _guarded(server: AudioServer, handler: Handler, *, is_public: bool) -> Handler:
    """Return the handler with the key checked before, errors in their form behind, and the answer counted."""

    async def guarded(request: Request) -> Response:
        start, status = time.monotonic(), 500
        try:
            if not is_public:
                server.check_key(request)
            response = await handler(request)
            status = response.status_code
        except (ApiError, SpeechLLMError) as error:
            answer = api_error(error)
            response, status = error_response(answer), answer.status
        except Exception as error:
            logger.exception("%s %s failed", request.method, request.url.path)
            response = error_response(api_error(error))
        finally:
            if not is_public:
                server.figures.answered(status, time.monotonic() - start)
        return response

    return guarded


async def _plain_http_error(request: Request, error: Exception) -> Response:
    """Give what the framework itself refuses (an unknown address, a broken form) the same form."""
    assert isinstance(error, HTTPException), "registered for this class alone"
    return error_response(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))


def _form(request: Request) -> Any:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "expected multipart/form-data with a file", code="invalid_form", param="file")
    return request.form(max_files=1, max_fields=32)


async def _content(form: Any) -> bytes:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ApiError(400, "the field 'file' is missing; send the audio in it", code="missing_field", param="file")
    return await file.read()


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except ValueError as error:  # broken JSON or UTF-8
        raise ApiError(400, "the body is not JSON", code="invalid_json") from error


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


def _segment(piece: Piece, output: TaskOutput) -> TranscriptSegment:
    tokens = tuple(int(token) for decoded in output.decoded for token in decoded.ids)
    return TranscriptSegment(piece.start_seconds, piece.stop_seconds, output.text, tokens, output.score)
