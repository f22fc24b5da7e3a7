"""What a request asks for, checked field by field: the fields of OpenAI's interface, and a few of ours.

    wanted = read_transcript_request(form, config, translate=False)      # TranscriptRequest(format="json", ...)
    wanted = read_speech_request({"model": "speechllm", "input": "hello", "voice": "default"}, config, voices={})

A field that this server does not know, or a value that it cannot honour, is an error that names the field: a client
should not believe that its prompt was read when nothing reads it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from speechllm.errors import TaskError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.sampling import SamplingConfig
from speechllm.registry import suggest
from speechllm.serving.answers import ApiError
from speechllm.serving.config import DEFAULT_VOICE, RegisteredVoice, ServeConfig
from speechllm.serving.speech import MEDIA_TYPES
from speechllm.serving.transcripts import TRANSCRIPT_FORMATS
from speechllm.tasks import language_code

TRANSCRIPT_FIELDS = ("file", "model", "language", "response_format", "temperature", "timestamp_granularities[]")
SPEECH_FIELDS = ("model", "input", "voice", "language", "response_format")
REFUSED: dict[str, tuple[str, ...]] = {
    "prompt": ("",),
    "stream": ("false",),
    "include[]": (),
    "chunking_strategy": ("auto",),
    "instructions": ("",),
    "speed": ("1", "1.0"),
    "stream_format": ("audio",),
}
"Fields of the interface that this server cannot honour, with the values that ask for nothing."


@dataclass(frozen=True, kw_only=True)
class TranscriptRequest:
    """A transcription or translation to text."""

    language: str
    "Code of the language spoken."
    to: str | None
    "Code of the language to translate into; None transcribes."
    format: str
    decoding: DecodingConfig


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """A text to speak."""

    text: str
    language: str
    voice: RegisteredVoice | None
    "None: the model draws one."
    format: str


def read_transcript_request(form: Any, config: ServeConfig, *, translate: bool) -> TranscriptRequest:
    """Return what a multipart form (`starlette.datastructures.FormData`) asks for.

    Raises:
        ApiError: a field is missing, unknown, or has a value that cannot be honoured.
    """
    known = (*TRANSCRIPT_FIELDS, "to") if translate else TRANSCRIPT_FIELDS
    fields = {name: value for name, value in form.multi_items() if name != "file"}
    _check_names(fields, known)
    _check_model(fields, config)
    if any(value != "segment" for value in form.getlist("timestamp_granularities[]")):
        raise _bad("timestamp_granularities[]", "only 'segment' is known: the model gives no times of words")
    return TranscriptRequest(
        language=_language(fields, "language", config.translate_from if translate else config.language),
        to=_language(fields, "to", config.translate_to) if translate else None,
        format=_choice(fields, "response_format", "json", TRANSCRIPT_FORMATS),
        decoding=DecodingConfig(text=SamplingConfig(temperature=_temperature(fields))),
    )


def read_speech_request(body: Any, config: ServeConfig, voices: Mapping[str, RegisteredVoice]) -> SpeechRequest:
    """Return what a JSON body asks for.

    Raises:
        ApiError: a field is missing, unknown, or has a value that cannot be honoured.
    """
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is a JSON {type(body).__name__}, expected an object", code="invalid_json")
    _check_names(body, SPEECH_FIELDS)
    _check_model(body, config)
    text = body.get("input")
    if not isinstance(text, str) or not text.strip():
        raise _bad("input", "expected a text that is not empty")
    if len(text) > config.max_text_characters:
        raise _bad("input", f"the text has {len(text)} characters, expected at most {config.max_text_characters}")
    return SpeechRequest(
        text=text,
        language=_language(body, "language", config.language),
        voice=_voice(body.get("voice"), voices),
        format=_choice(body, "response_format", "mp3", tuple(MEDIA_TYPES)),
    )


def _voice(given: Any, voices: Mapping[str, RegisteredVoice]) -> RegisteredVoice | None:
    name = given.get("id") if isinstance(given, dict) else given
    known = (DEFAULT_VOICE, *voices)
    if not isinstance(name, str) or name not in known:
        hint = suggest(name, known) if isinstance(name, str) else ""
        raise _bad("voice", f"there is no voice {name!r}{hint} (known: {', '.join(known)})")
    return voices.get(name)


def _check_names(fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name, value in fields.items():
        if name in known:
            continue
        if name not in REFUSED:
            raise _bad(name, f"unknown field {name!r}{suggest(name, known)} (known: {', '.join(known)})")
        if value is not None and str(value).lower() not in REFUSED[name]:
            raise _bad(name, f"{name} is not supported by this server; leave it out")


def _check_model(fields: Mapping[str, Any], config: ServeConfig) -> None:
    name = fields.get("model")
    if name != config.name:
        raise ApiError(
            404, f"there is no model {name!r} here, only {config.name!r}", code="model_not_found", param="model"
        )


def _language(fields: Mapping[str, Any], name: str, default: str) -> str:
    given = fields.get(name)
    try:
        return language_code(str(given) if given else default)
    except TaskError as error:
        raise _bad(name, str(error)) from error


def _choice(fields: Mapping[str, Any], name: str, default: str, known: tuple[str, ...]) -> str:
    value = fields.get(name) or default
    if value not in known:
        raise _bad(name, f"{name} is {value!r}, expected one of {', '.join(known)}")
    return value


def _temperature(fields: Mapping[str, Any]) -> float:
    given = fields.get("temperature") or 0
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 2:  # and not NaN
        raise _bad("temperature", f"temperature is {given!r}, expected a number from 0 to 2")
    return value


def _bad(param: str, message: str) -> ApiError:
    return ApiError(400, message, code="invalid_value", param=param)
