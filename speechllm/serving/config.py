"""How a server behaves: its limits, its timeouts, the voices that it may speak with.

    config = build_config(ServeConfig, {"port": 9000, "max_batch": 8})
    voices = load_voices(Path("voices.yaml"))          # {"anna": RegisteredVoice(...)}

    # voices.yaml; paths are relative to it
    anna: {audio: anna.wav, consent: "Anna Example, agreement of 2026-03-01"}

Requests name a voice; what they can name is this list, made by the operator before the start.
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from speechllm.audio import Audio, load_audio
from speechllm.config import build_config
from speechllm.errors import ConfigError, ConsentError
from speechllm.tasks import language_code

DEFAULT_VOICE = "default"
"The name under which the model draws a voice itself."


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Everything about a server but the checkpoint."""

    host: str = "127.0.0.1"
    "Address to listen at; 0.0.0.0 is every interface: set an API key then."
    port: int = 8000
    "Port; 0 takes a free one."
    name: str = "speechllm"
    "The id of the model in /v1/models; requests must name it."
    language: str = "en"
    "Language of speech to transcribe and of text to speak, where a request names none."
    translate_from: str = "fr"
    "Language of speech to translate, where a request names none (OpenAI's interface has no field for it)."
    translate_to: str = "en"
    "Language to translate into, where a request names none."
    max_upload_bytes: int = 25 * 2**20
    "Longest body of a request; more is answered with 413."
    max_audio_seconds: float = 600.0
    "Longest recording."
    max_text_characters: int = 4096
    "Longest text to speak."
    max_batch: int = 16
    "Pieces of audio or text that the model works on together."
    gather_seconds: float = 0.01
    "How long an idle model waits for company after a request has come."
    queue_size: int = 64
    "Requests that may wait or be worked on; more are answered with 503 and Retry-After."
    queue_audio_seconds: float = 3600.0
    "Seconds of audio that may wait or be worked on: this bounds memory."
    deadline_seconds: float = 60.0
    "From the end of the upload to the answer (per sentence, for streamed speech); then 504."
    head_seconds: float = 10.0
    "A connection must have sent the head of a request within this."
    upload_seconds: float = 30.0
    "... and its body within this; then 408."
    write_seconds: float = 30.0
    "A client must read some of the answer within this, or is cut off."
    max_connections: int = 256
    "Open connections; more are answered with 503."
    shutdown_seconds: float = 30.0
    "After SIGTERM, requests under way may take this long."
    log_seconds: float = 60.0
    "Time between two lines of figures in the log."
    candidates: int = 1
    "Answers drawn where text is spoken, the one that the model hears best is kept; 1: one greedy answer."

    def __post_init__(self) -> None:
        for name in (
            "max_upload_bytes",
            "max_text_characters",
            "max_batch",
            "queue_size",
            "max_connections",
            "candidates",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in (
            "max_audio_seconds", "queue_audio_seconds", "deadline_seconds", "head_seconds", "upload_seconds",
            "write_seconds", "shutdown_seconds", "log_seconds",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected more than 0")
        if self.gather_seconds < 0 or not 0 <= self.port < 2**16:
            raise ConfigError(f"gather_seconds = {self.gather_seconds}, port = {self.port}: one does not fit")
        for name in ("language", "translate_from", "translate_to"):
            language_code(getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class VoiceEntry:
    """One voice in voices.yaml."""

    audio: str
    "Path of a recording of some seconds, relative to the file."
    consent: str
    "Who agreed, and when: a note for you; it must not be empty."


@dataclass(frozen=True, eq=False)
class RegisteredVoice:
    """A voice that requests may name."""

    name: str
    audio: Audio = field(repr=False)
    consent: str


def load_voices(path: Path) -> dict[str, RegisteredVoice]:
    """Read the voices that requests may name, by name.

    Raises:
        ConfigError: the file cannot be read, or an entry does not fit.
        ConsentError: an entry does not say who agreed.
        AudioError: a recording cannot be read.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read voices {path}: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ConfigError(f"{path} is no list of voices; expected 'name: {{audio: file.wav, consent: who agreed}}'")
    voices = {}
    for name, content in entries.items():
        entry = build_config(VoiceEntry, content, where=f"{path}, voice {name!r}")
        if not entry.consent.strip():
            raise ConsentError(f"{path}: voice {name!r} does not say who agreed to its use; fill in consent")
        if name == DEFAULT_VOICE:
            raise ConfigError(f"{path}: the name {DEFAULT_VOICE!r} means a voice that the model draws; choose another")
        voices[str(name)] = RegisteredVoice(str(name), load_audio(path.parent / entry.audio), entry.consent)
    return voices
