"""What every model from semantic to acoustic codes has in common, and how a saved one is found again.

    model = load_acoustic("checkpoint/acoustic")           # config.json names the kind
    model.config.num_codebooks, model.config.frames_per_condition

A model of your own follows `AcousticModel`, is registered here under its kind, and its decoding under the same name in
`speechllm.generation.acoustic`.
"""

from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from speechllm.nn.pretrained import saved_kind
from speechllm.registry import Registry


@runtime_checkable
class AcousticConfig(Protocol):
    """What is asked of any acoustic model's config."""

    @property
    def num_conditions(self) -> int:
        """Number of semantic codes."""
        ...

    @property
    def num_codebooks(self) -> int:
        """Acoustic levels that the model makes."""
        ...

    @property
    def codebook_size(self) -> int:
        """Acoustic codes of one level."""
        ...

    @property
    def frames_per_condition(self) -> int:
        """Codec frames that one semantic code lasts."""
        ...

    @property
    def semantic_fingerprint(self) -> str:
        """Fingerprint of the semantic tokenizer that it was trained with, or nothing."""
        ...

    @property
    def codec_fingerprint(self) -> str:
        """Fingerprint of the codec that it was trained with, or nothing."""
        ...


@runtime_checkable
class AcousticModel(Protocol):
    """Semantic codes in, acoustic codes out; how, is the business of its kind."""

    kind: str
    "The name in config.json and in the registries."

    @property
    def config(self) -> AcousticConfig:
        """Sizes and fingerprints."""
        ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        ...

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote, in evaluation mode."""
        ...


ACOUSTIC_MODELS: Registry[type[AcousticModel]] = Registry(
    "acoustic model",
    {"soundstorm": "speechllm.models.soundstorm:SoundStorm", "audiolm": "speechllm.models.audiolm:AudioLM"},
)
"Kinds of acoustic model by the name that stands in config.json."


def load_acoustic(folder: str | Path) -> AcousticModel:
    """Load the acoustic model saved in `folder`, whatever its kind.

    Raises:
        CheckpointError: there is no readable config.json that names a kind.
        RegistryError: the kind is not known.
    """
    return ACOUSTIC_MODELS[saved_kind(folder, "an acoustic model")].from_pretrained(folder)
