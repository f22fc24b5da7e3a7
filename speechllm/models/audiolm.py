"""AudioLM: three token LMs, from nothing to semantic codes, from those to coarse, from those to fine acoustic codes.

    model = AudioLM.from_pretrained("runs/audiolm")
    model.semantic, model.coarse, model.fine          # each a TokenLM; semantic and fine may be absent

    stage      models (arXiv:2209.03143, section 3)          assumes
    semantic   p(z_t | z_<t)                                   sound tells nothing new of what comes
    coarse     p(y_t^q | z, y_<t, y_t^<q)        q <= Q'
    fine       p(y_t^q | y^<=Q', y_<t, y_t^<q)   q > Q'        fine levels are local and need no z

Without `semantic` it is an acoustic stage for another LM's semantic codes, like SoundStorm; without `fine`, the coarse
stage has all the levels, as in the paper's piano model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import nn

from speechllm.config import build_config, config_to_dict
from speechllm.errors import ConfigError
from speechllm.models.stage_layouts import CodeSizes, StageName, stage_layout
from speechllm.models.token_lm import StageLMConfig, TokenLM
from speechllm.nn.pretrained import filled_model, read_folder, write_folder

KIND = "audiolm"


@dataclass(frozen=True, kw_only=True)
class AudioLMConfig:
    """Which codes there are, and the stages over them."""

    sizes: CodeSizes
    "How many codes there are of each sort."
    frame_rate: float
    "Codec frames a second."
    frames_per_condition: int
    "Codec frames that one semantic code lasts."
    semantic: StageLMConfig | None = None
    "First stage; None: semantic codes come from elsewhere."
    coarse: StageLMConfig
    "Second stage."
    fine: StageLMConfig | None = None
    "Third stage; None: all levels are coarse."
    prompt_seconds: float = 3.0
    "What is carried over from one window of the coarse stage to the next."
    semantic_fingerprint: str = ""
    "Fingerprint of the semantic tokenizer that it was trained with."
    codec_fingerprint: str = ""
    "Fingerprint of the codec that it was trained with."

    def __post_init__(self) -> None:
        if self.frame_rate <= 0 or self.frames_per_condition < 1:
            raise ConfigError(
                f"frame_rate = {self.frame_rate}, frames_per_condition = {self.frames_per_condition}: expected above 0"
            )
        if (self.fine is None) != (self.sizes.num_coarse == self.sizes.num_codebooks):
            raise ConfigError(
                f"{self.sizes.num_coarse} of {self.sizes.num_codebooks} levels are coarse and fine is "
                f"{'absent' if self.fine is None else 'given'}; give fine exactly if some levels are left for it"
            )
        if self.semantic is not None and self.semantic.dedup and not self.coarse.dedup:
            raise ConfigError("semantic.dedup drops durations that coarse needs without dedup; set both, or neither")
        for name, stage in (("semantic", self.semantic), ("coarse", self.coarse)):
            if stage is not None and stage.dedup and not stage.tokens_per_second:
                raise ConfigError(f"{name}.dedup needs {name}.tokens_per_second, measured on the training data")

    @property
    def num_conditions(self) -> int:
        """Number of semantic codes."""
        return self.sizes.num_conditions

    @property
    def num_codebooks(self) -> int:
        """Acoustic levels, coarse and fine together."""
        return self.sizes.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Acoustic codes of one level."""
        return self.sizes.codebook_size

    def code_rate(self, stage: StageLMConfig) -> float:
        """Return the semantic codes that a second takes in a stage: fewer where repeats are removed."""
        whole = self.frame_rate / self.frames_per_condition
        return stage.tokens_per_second or whole if stage.dedup else whole


class AudioLM(nn.Module):
    """The stages, side by side: each is trained alone."""

    kind = KIND

    def __init__(self, config: AudioLMConfig):
        super().__init__()
        self.config = config
        self.semantic = _stage("semantic", config.semantic, config.sizes)
        self.coarse = TokenLM(config.coarse, stage_layout("coarse", config.sizes))
        self.fine = _stage("fine", config.fine, config.sizes)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        write_folder(folder, {"kind": KIND, "config": config_to_dict(self.config)}, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote, in evaluation mode.

        Raises:
            CheckpointError: the folder is incomplete or its weights do not fit its config.
        """
        saved, tensors = read_folder(folder, KIND)
        config = build_config(AudioLMConfig, saved.get("config", {}), where=str(folder))
        return filled_model(cls(config), tensors, folder)


def _stage(stage: StageName, config: StageLMConfig | None, sizes: CodeSizes) -> TokenLM | None:
    return None if config is None else TokenLM(config, stage_layout(stage, sizes))
