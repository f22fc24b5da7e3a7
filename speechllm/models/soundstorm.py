"""SoundStorm: semantic codes in, a distribution over every acoustic code out, all frames at once.

    model = SoundStorm(SoundStormConfig(num_conditions=1024, num_codebooks=8, codebook_size=1024))
    model(condition, codes, lengths, level)      # [B, T], [B, K, T] -> logits [B, T, N] of one level a row

    frame t:   E_c[c_t] + sum over levels q of E_q[Y_tq]   --Conformer-->  h_t  --head q-->  N logits
               never masked          N codes and MASK = N

SoundStorm (arXiv:2305.09636, section 3). With `tied=True`, a deviation for small data and short
training, input and output live in the space of the codec's codebook vectors C_q[n]: a frame enters
as a projection of the sum of its known vectors, head q predicts the frame's whole vector v, and the
logit of code n is minus the squared distance of C_q[n] to what v leaves after the levels below q.

For dialogues in one pass, a condition also says who speaks: speaker s says code c as condition c + s * num_conditions
(`mark_speaker`), and s has an embedding of its own, added like that of c. Without marks everything is of speaker 0. In
the paper's dialogues turns are marked in the transcript alone, and what differs between speakers must reach SoundStorm
through the semantic codes; codes that say nothing of the voice need marks.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.config import build_config, config_to_dict
from speechllm.errors import ConfigError
from speechllm.models.linear_start import LinearStart
from speechllm.nn.conformer import Conformer, ConformerConfig, length_mask
from speechllm.nn.pretrained import filled_model, read_folder, write_folder

KIND = "soundstorm"


@dataclass(frozen=True, kw_only=True)
class SoundStormConfig:
    """Sizes, and which codes go in and out."""

    num_conditions: int
    "Number of semantic codes."
    num_codebooks: int
    "Acoustic levels K."
    codebook_size: int
    "Codes N of one level; id N is MASK."
    frames_per_condition: int = 2
    "Codec frames that one semantic code lasts."
    tied: bool = True
    "Inputs and outputs through the codec's codebook vectors; False: free tables and heads, as in the paper."
    codebook_width: int = 0
    "Width of a codebook vector; needed when tied."
    start_context: int | None = 2
    "Semantic codes on each side from which the linear start is fitted (tied models); None: no linear start."
    trunk: ConformerConfig = field(default_factory=ConformerConfig)
    "Sizes of the Conformer."
    temperature: float = 0.5
    "Of the draws at the first level (unpublished); 0: the likeliest code, for models trained for minutes."
    at_once: bool = False
    """Speak in one pass (tied models): the frame vector that is predicted with everything masked is quantised, level by
    level. For models trained for minutes, whose later passes lose more than they add: on 80 sentences of the quickstart
    CER was 22.4 at once, 27.5 with 16 + 1 + 1 + 1 + 1 + 1 passes (one model)."""
    max_frames: int | None = 1_500
    """Longest window in codec frames, prompt included: 30 s at 50 Hz, as the paper trains. Longer speech is made
    window by window; None: always in one."""
    num_speakers: int = 1
    "Speakers that are told apart in one dialogue; 1: conditions have no marks."
    semantic_fingerprint: str = ""
    "Fingerprint of the semantic tokenizer that it was trained with."
    codec_fingerprint: str = ""
    "Fingerprint of the codec that it was trained with."

    def __post_init__(self) -> None:
        if self.tied and self.codebook_width < 1:
            raise ConfigError("tied needs codebook_width, the width of the codec's vectors; or set tied to false")
        if self.at_once and not self.tied:
            raise ConfigError("at_once needs the vectors of a tied model; set tied to true or at_once to false")
        sizes = (self.num_conditions, self.num_codebooks, self.codebook_size, self.frames_per_condition)
        if min(*sizes, self.num_speakers) < 1:
            raise ConfigError(
                "num_conditions, num_codebooks, codebook_size, frames_per_condition, num_speakers: expected above 0"
            )
        if self.max_frames is not None and self.max_frames < 2 * self.frames_per_condition:
            raise ConfigError(f"max_frames = {self.max_frames}, expected two semantic codes at least, or null")


def mark_speaker(codes: Int[np.ndarray, " T"], speaker: int, config: SoundStormConfig) -> Int[np.ndarray, " T"]:
    """Return semantic codes as conditions that say who speaks them; speaker 0 leaves them as they are.

    Raises:
        ConfigError: the model has no mark for that speaker.
    """
    if not 0 <= speaker < config.num_speakers:
        raise ConfigError(
            f"speaker {speaker} of a dialogue, but this SoundStorm has marks for {config.num_speakers} (counted from "
            "0); speak the turns one by one"
        )
    return codes + speaker * config.num_conditions


class SoundStormOutput(NamedTuple):
    """Logits, and the vectors that they were measured from."""

    logits: Float[Tensor, "B T N"]
    vectors: Float[Tensor, "B T D"] | None
    "Predicted frame vectors in normalised units; None unless tied."


class SoundStorm(nn.Module):
    """The masked model. Padding beyond `lengths` changes nothing before it."""

    kind = KIND

    def __init__(self, config: SoundStormConfig):
        super().__init__()
        self.config = config
        width = config.trunk.width
        self.condition = nn.Embedding(config.num_conditions, width)
        self.phase = nn.Embedding(config.frames_per_condition, width)
        self.speakers = nn.Embedding(config.num_speakers, width) if config.num_speakers > 1 else None
        self.codes = TiedCodes(config) if config.tied else FreeCodes(config)
        self.start: LinearStart | None = None
        if config.tied and config.start_context is not None:
            self.start = LinearStart(
                num_conditions=config.num_conditions,
                frames_per_condition=config.frames_per_condition,
                width=config.codebook_width,
                context=config.start_context,
            )
        self.trunk = Conformer(config.trunk)
        nn.init.normal_(self.condition.weight, std=0.5)
        nn.init.normal_(self.phase.weight, std=0.1)
        if self.speakers is not None:
            # Zero for the first: a model that learns marks later starts as if they were not there.
            nn.init.normal_(self.speakers.weight, std=0.5)
            nn.init.zeros_(self.speakers.weight[:1])

    @property
    def mask_id(self) -> int:
        """The id that stands where a code is unknown."""
        return self.config.codebook_size

    def forward(
        self,
        condition: Int[Tensor, "B T"],
        codes: Int[Tensor, "B K T"],
        lengths: Int[Tensor, " B"],
        level: Int[Tensor, " B"],
    ) -> SoundStormOutput:
        """Return the logits of level `level[b]` for each row b.

        Args:
            condition: semantic codes at the codec's frame rate, with the marks of `mark_speaker` if need be.
            codes: acoustic codes, `mask_id` where unknown.
            lengths: frames of each row; the rest is padding, whatever it holds.
            level: 0 .. K - 1.
        """
        T = condition.shape[1]
        phase = torch.arange(T, device=condition.device) % self.config.frames_per_condition
        x = self._embed(condition) + self.phase(phase) + self.codes.embed(codes)
        start = None
        if self.start is not None and isinstance(self.codes, TiedCodes):
            start = self.start(condition, lengths)
            x = x + self.codes.project_start(start)
        hidden = self.trunk(x, length_mask(lengths, T))
        if isinstance(self.codes, TiedCodes):
            return self.codes.predict(hidden, codes, level, start)
        return self.codes.predict(hidden, codes, level)

    def _embed(self, condition: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        if self.speakers is None:
            return self.condition(condition)
        return self.condition(condition % self.config.num_conditions) + self.speakers(
            condition // self.config.num_conditions
        )

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
        config = build_config(SoundStormConfig, saved.get("config", {}), where=str(folder))
        return filled_model(cls(config), tensors, folder)


def take_weights(model: SoundStorm, folder: str | Path) -> None:
    """Give `model` the weights of a saved one of the same sizes; marks of speakers that are not there stay as they are.

    Raises:
        CheckpointError: the folder holds no whole SoundStorm.
        ConfigError: its sizes, codec or tokenizer are others.
    """
    saved = SoundStorm.from_pretrained(folder)
    # How it decodes may differ.
    decoding = {name: getattr(saved.config, name) for name in ("temperature", "at_once", "max_frames")}
    expected = replace(model.config, **decoding)
    if saved.config not in (expected, replace(expected, num_speakers=1)):
        theirs, ours = config_to_dict(saved.config), config_to_dict(expected)
        differing = ", ".join(f"{name} ({theirs[name]} there)" for name in ours if theirs[name] != ours[name])
        raise ConfigError(f"cannot go on from {folder}: it has another {differing}; set the same or start afresh")
    model.load_state_dict(saved.state_dict(), strict=False)


class FreeCodes(nn.Module):
    """The paper's form: a table of N + 1 rows and a dense head for each level."""

    def __init__(self, config: SoundStormConfig):
        super().__init__()
        width, self.codebook_size = config.trunk.width, config.codebook_size
        tables = [nn.Embedding(config.codebook_size + 1, width) for _ in range(config.num_codebooks)]
        for table in tables:
            nn.init.normal_(table.weight, std=config.num_codebooks**-0.5)
        self.tables = nn.ModuleList(tables)
        self.heads = nn.ModuleList(nn.Linear(width, config.codebook_size) for _ in range(config.num_codebooks))

    def embed(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B T D"]:
        """Return the sum of the levels' embeddings."""
        total = self.tables[0](codes[:, 0])
        for k, table in enumerate(self.tables[1:], start=1):
            total = total + table(codes[:, k])
        return total

    def predict(
        self, hidden: Float[Tensor, "B T D"], codes: Int[Tensor, "B K T"], level: Int[Tensor, " B"]
    ) -> SoundStormOutput:
        """Return each row's logits from the head of its level."""
        levels = level.unique().tolist()
        if len(levels) == 1:  # always so in decoding: nothing to sort out
            return SoundStormOutput(self.heads[levels[0]](hidden).float(), None)
        logits = hidden.new_zeros(*hidden.shape[:2], self.codebook_size, dtype=torch.float32)
        for q in levels:
            rows = level == q
            logits[rows] = self.heads[q](hidden[rows]).float()
        return SoundStormOutput(logits, None)


class TiedCodes(nn.Module):
    """Codes as vectors: known ones add up, unknown ones are measured by their distance to a prediction."""

    vectors: Tensor
    offset: Tensor

    def __init__(self, config: SoundStormConfig):
        super().__init__()
        K, N, D = config.num_codebooks, config.codebook_size, config.codebook_width
        width = config.trunk.width
        self.register_buffer("vectors", torch.zeros(K, N + 1, D))
        self.register_buffer("offset", torch.zeros(D))
        self.masks = nn.Embedding(K, width)
        self.project = nn.Linear(D, width)
        self.project_start = nn.Linear(D, width)
        # How far a frame is drawn from what is known of it towards the linear start, by level.
        self.trust = nn.Parameter(torch.full((K,), 0.3))
        self.shared_head = nn.Linear(width, D)
        self.level_heads = nn.Parameter(torch.zeros(K, width, D))
        self.log_scale = nn.Parameter(torch.zeros(K))
        nn.init.normal_(self.masks.weight, std=0.1)
        # Zero: the first prediction is the mean frame, at equal distances from all.
        nn.init.zeros_(self.shared_head.weight)
        nn.init.zeros_(self.shared_head.bias)
        with torch.no_grad():
            self.trust[0] = 1

    def set_codebooks(self, codebooks: Float[Tensor, "K N D"]) -> None:
        """Take over the codec's vectors, shifted and scaled so that frames have mean 0 and about unit variance.

        The weights of levels are not learnt: every code of level 0 counts alike.
        """
        mean, scale = codebooks[0].mean(0), codebooks[0].std().clamp_min(1e-6)
        vectors = codebooks / scale
        vectors[0] = (codebooks[0] - mean) / scale
        self.vectors.zero_()
        self.vectors[:, :-1] = vectors
        self.offset.copy_(mean)
        # A level's logits start with a spread of a few units, whatever its share of the variance.
        spread = vectors.flatten(1).var(1).clamp_min(1e-6)
        with torch.no_grad():
            self.log_scale.copy_((2 / spread / vectors.shape[2]).log())

    def known_sum(self, codes: Int[Tensor, "B K T"], below: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B T D"]:
        """Return the sum of the known vectors (of levels below `below[b]`); MASK counts as zero."""
        B, K, T = codes.shape
        rows, width = self.vectors.shape[1:]
        levels = torch.arange(K, device=codes.device)[None, :, None]
        if below is not None:
            codes = codes.masked_fill(levels >= below[:, None, None], rows - 1)
        # One pass over one long table: MASK's row is zero, so a bag may always hold K codes.
        bags = rearrange(codes + levels * rows, "b k t -> (b t) k")
        return nn.functional.embedding_bag(bags, self.vectors.flatten(0, 1), mode="sum").view(B, T, width)

    def nearest(self, rest: Float[Tensor, "B T E"], level: int) -> Int[Tensor, "B T"]:
        """Return the code of a level whose vector is closest."""
        codebook = self.vectors[level, :-1]
        return (codebook.square().sum(1) - 2 * rest @ codebook.T).argmin(-1)

    def quantise(self, vectors: Float[Tensor, "B T E"]) -> Int[Tensor, "B K T"]:
        """Return the codes of all levels for whole frame vectors, coarse to fine."""
        codes = []
        for k in range(len(self.vectors)):
            codes.append(self.nearest(vectors, k))
            vectors = vectors - nn.functional.embedding(codes[-1], self.vectors[k])
        return torch.stack(codes, dim=1)

    def embed(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B T D"]:
        """Return the projected sum of known vectors plus a learnt row for each masked level."""
        is_masked = (codes == self.vectors.shape[1] - 1).transpose(1, 2)
        return self.project(self.known_sum(codes)) + is_masked.float() @ self.masks.weight

    def predict(
        self,
        hidden: Float[Tensor, "B T D"],
        codes: Int[Tensor, "B K T"],
        level: Int[Tensor, " B"],
        start: Float[Tensor, "B T E"] | None = None,
    ) -> SoundStormOutput:
        """Return logits = -scale * squared distance (up to a constant of the frame), and the predicted vectors.

        With a linear start, what the trunk predicts is a correction: to the start where nothing of a frame is
        known, to a point between the known levels and the start where something is.
        """
        vectors = (self.shared_head(hidden) + torch.bmm(hidden, self.level_heads[level].to(hidden.dtype))).float()
        if start is not None:
            known = self.known_sum(codes, below=level)
            vectors = vectors + known + self.trust[level][:, None, None] * (start - known)
        logits = vectors.new_zeros(*vectors.shape[:2], self.vectors.shape[1] - 1)
        # Differences of squares lose their digits in bfloat16: distances stay in float32 under autocast.
        with torch.autocast(hidden.device.type, enabled=False):
            rest = vectors - self.known_sum(codes, below=level)
            for q in level.unique().tolist():
                rows, codebook = level == q, self.vectors[q, :-1]
                distance = codebook.square().sum(1) - 2 * rest[rows] @ codebook.T
                logits[rows] = -distance * self.log_scale[q].exp()
        return SoundStormOutput(logits, vectors)
