"""The errors a user can meet. Each message says what was given, what was expected and what to do.

All of them derive from `SpeechLLMError`, so that a program can catch ours apart from everybody
else's; most also derive from the builtin that the Python idiom would expect.
"""


class SpeechLLMError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(SpeechLLMError, ValueError):
    """A configuration file, a key in it or an option does not fit."""


class RegistryError(SpeechLLMError, KeyError):
    """A name is not registered, or is registered twice with different targets."""

    def __str__(self) -> str:
        """Return the plain message (`KeyError` would print its repr)."""
        return str(self.args[0]) if self.args else ""


class AudioError(SpeechLLMError, ValueError):
    """A waveform or an audio file cannot be used."""


class DataError(SpeechLLMError, ValueError):
    """A record, a corpus or a shard is broken or does not fit."""


class TaskError(SpeechLLMError, ValueError):
    """A task tag, a language or the fields for a task do not fit."""


class UntrainedError(TaskError):
    """A checkpoint was not trained for a task, or not in a language; `why` says so without the way around it."""

    def __init__(self, why: str):
        super().__init__(f"{why}; to try anyway, load it with allow_untrained=True (--allow-untrained)")
        self.why = why


class VocabularyError(SpeechLLMError, ValueError):
    """An id or a code lies outside its block, or two vocabularies disagree."""


class CheckpointError(SpeechLLMError, ValueError):
    """A checkpoint folder is incomplete, or belongs to something else."""


class NoCheckpointError(CheckpointError):
    """A folder or a repository is there, but holds no checkpoint of ours."""


class TrainingError(SpeechLLMError, RuntimeError):
    """Training cannot go on: a loss or a gradient is not finite."""


class ConsentError(SpeechLLMError, PermissionError):
    """A voice prompt was given without the statement that its speaker agreed."""


class MissingDependencyError(SpeechLLMError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed; run: pip install 'speechllm[{extra}]'"
        )
        self.package, self.extra = package, extra
