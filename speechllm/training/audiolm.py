"""Training AudioLM's stages, one after another, each with the same stage class over its own layout.

    model, reports = train_audiolm("corpus/", semantic_tokenizer, codec, config, "runs/audiolm")
    reports["coarse"].losses[-1]

    stage      a row (arXiv:2209.03143, sections 3 and 4)                     crop
    semantic   BOS z ... z EOS          EOS only where the crop holds the end   30 s
    coarse     z ... z BOS y ... y EOS  EOS always: all of z has been said      10 s
    fine       y ... y BOS y ... y      no EOS: as long as its prefix           3 s

The loss is the mean cross-entropy of target ids (EOS included) among the ids that are legal there. The prefix carries
none: in use it is always given, and its own stage learns it. (The paper does not say which it did.)
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.data.tokenize import Tokenizer
from speechllm.errors import ConfigError, DataError
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.stage_init import start_at_vectors
from speechllm.models.stage_layouts import STAGES, CodeSizes, StageLayout, remove_repeats
from speechllm.models.token_lm import StageLMConfig, TokenLM
from speechllm.tokenizers.codec import Codec
from speechllm.training.loop import LoopConfig, LoopReport, save_once, train_stage
from speechllm.training.soundstorm import frames_per_condition
from speechllm.training.utterances import AcousticUtterance, encode_utterances, fit_to_codes

POOL = 8
"Batches over which utterances are sorted by length: little padding, and neighbours still change with the epoch."


@dataclass(frozen=True, kw_only=True)
class StageTrainConfig:
    """One stage's run."""

    lm: StageLMConfig
    "The model. Its window is the crop."
    loop: LoopConfig
    "Steps, optimizer, precision."
    batch_size: int = 16
    "Rows of a batch."
    code_noise: float = 0.0
    """Share of the target's codes that are random where the stage reads them; what it is to predict stays. A stage that
    is trained for minutes otherwise goes by what it wrote last and does not come to listen to its prefix. 0: the
    paper's training."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size = {self.batch_size}, expected at least 1")
        if not 0 <= self.code_noise <= 1:
            raise ConfigError(f"code_noise = {self.code_noise}, expected a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class AudioLMTrainConfig:
    """All stages. What `dedup` is to be follows from the use: see `StageLMConfig.dedup`."""

    num_codebooks: int
    "Levels of the codec that are modelled, from the coarsest on; 12 in the paper."
    num_coarse: int
    "How many of them are the coarse stage's; 4 in the paper."
    semantic: StageTrainConfig | None = None
    "First stage; None: semantic codes will come from elsewhere."
    coarse: StageTrainConfig
    "Second stage."
    fine: StageTrainConfig | None = None
    "Third stage; None exactly if all levels are coarse."
    prompt_seconds: float = 3.0
    "See `AudioLMConfig.prompt_seconds`."
    row_init: Literal["normal", "centroid"] = "normal"
    """Where the rows of codes start: drawn, or at the vectors that the codes stand for (`models/stage_init.py`), so
    that a small corpus need not teach which codes are alike."""
    join_speakers: bool = False
    """Lay utterances of one speaker end to end until the longest window is full. A corpus of sentences otherwise has no
    row as long as a voice prompt and what is said after it."""
    seed: int = 0
    "Of initial weights, order and crops."


@runtime_checkable
class HasCentroids(Protocol):
    """A semantic tokenizer whose codes stand for vectors."""

    @property
    def centroids(self) -> Float[Tensor, "N E"]:
        """The codebook."""
        ...


class StageBatch(NamedTuple):
    """Rows of ids, padded on the right."""

    ids: Int[Tensor, "B T"]
    starts: Int[Tensor, " B"]
    "Index of each row's first target id."
    lengths: Int[Tensor, " B"]
    read: Int[Tensor, "B T"]
    "What the model reads: `ids`, with noise where the config asks for it."


class TokenLMStage:
    """A `Stage`: batches are a function of (seed, step), every utterance comes once an epoch, each time as a crop."""

    def __init__(
        self,
        lm: TokenLM,
        utterances: Sequence[AcousticUtterance],
        *,
        code_rate: float,
        frames_per_condition: int,
        batch_size: int,
        code_noise: float = 0.0,
        seed: int,
    ):
        if not utterances:
            raise DataError("there are no utterances to train on; prepare a corpus with audio first")
        self.model: nn.Module = lm
        self.layout, self.dedup = lm.layout, lm.config.dedup
        self.crop = max(1, round(lm.config.window_seconds * code_rate))
        self.repeat, self.batch_size, self.code_noise, self.seed = frames_per_condition, batch_size, code_noise, seed
        self.pairs = [fit_to_codes(utterance, self.repeat) for utterance in utterances]
        self._order = functools.lru_cache(maxsize=4)(self._draw_order)

    def batch(self, step: int) -> StageBatch:
        """Return batch `step`."""
        rng = np.random.default_rng((self.seed, 1, step))
        rows = [self._row(i, rng) for i in self._utterances(step)]
        lengths = torch.tensor([len(ids) for ids in rows])
        starts = torch.tensor([int(np.flatnonzero(ids == self.layout.bos_id)[0]) + 1 for ids in rows])
        padded = torch.full((len(rows), int(lengths.max())), self.layout.bos_id)
        for b, ids in enumerate(rows):
            padded[b, : len(ids)] = torch.from_numpy(ids)
        return StageBatch(padded, starts, lengths, self._with_noise(padded, starts, rng))

    def loss(self, batch: StageBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the mean cross-entropy over target ids."""
        scores = self.model(*batch)
        count = scores.is_target.sum()
        return -scores.log_probs.sum() / count, {"accuracy": float(scores.is_best.sum() / count)}

    def _with_noise(
        self, ids: Int[Tensor, "B T"], starts: Int[Tensor, " B"], rng: np.random.Generator
    ) -> Int[Tensor, "B T"]:
        """Return ids with some of the target's codes replaced by any of their level; EOS and padding may be hit."""
        if self.code_noise == 0:
            return ids
        blocks = [self.layout.vocabulary[name] for name in self.layout.target_blocks]
        after = torch.arange(ids.shape[1])[None] - starts[:, None]
        level = after.remainder(len(blocks))
        size = min(block.size for block in blocks)
        drawn = torch.from_numpy(rng.integers(size, size=ids.shape)) + torch.tensor([b.start for b in blocks])[level]
        is_hit = (after >= 0) & torch.from_numpy(rng.random(ids.shape) < self.code_noise)
        return torch.where(is_hit, drawn, ids)

    def _row(self, index: int, rng: np.random.Generator) -> Int[np.ndarray, " L"]:
        """Return the ids of a crop."""
        semantic, acoustic = self.pairs[index]
        start = int(rng.integers(max(0, len(semantic) - self.crop) + 1))
        stop = min(start + self.crop, len(semantic))
        is_end = stop == len(semantic)
        semantic, acoustic = semantic[start:stop], acoustic[:, start * self.repeat : stop * self.repeat]
        return stage_row(self.layout, remove_repeats(semantic)[0] if self.dedup else semantic, acoustic, is_end=is_end)

    def _utterances(self, step: int) -> list[int]:
        """Return the utterances of a batch: the stream of epochs, sorted by length within pools."""
        pool, place = divmod(step, POOL)
        size = POOL * self.batch_size
        stream = [divmod(i, len(self.pairs)) for i in range(pool * size, (pool + 1) * size)]
        # Nothing is longer than a crop, so there is nothing to sort among long utterances.
        members = sorted(
            (self._order(epoch)[i] for epoch, i in stream), key=lambda i: min(len(self.pairs[i][0]), self.crop)
        )
        first = int(np.random.default_rng((self.seed, 2, pool)).permutation(POOL)[place]) * self.batch_size
        return members[first : first + self.batch_size]

    def _draw_order(self, epoch: int) -> list[int]:
        return np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.pairs)).tolist()


def stage_row(
    layout: StageLayout, semantic: Int[np.ndarray, " n"], acoustic: Int[np.ndarray, "K T"], *, is_end: bool
) -> Int[np.ndarray, " L"]:
    """Return the training row of one stage; `is_end` says that the speech ends with these codes."""
    if layout.stage == "semantic":
        return layout.encode(np.zeros((0, 0), np.int64), semantic[None], end=is_end)
    if layout.stage == "coarse":
        return layout.encode(semantic[None], acoustic[: layout.num_levels], end=True)
    coarse = len(layout.prefix_blocks)
    return layout.encode(acoustic[:coarse], acoustic[coarse : coarse + layout.num_levels], end=False)


def train_audiolm(
    corpus_folder: str | Path,
    semantic_tokenizer: Tokenizer,
    codec: Codec,
    config: AudioLMTrainConfig,
    out: str | Path,
    *,
    tokens_folder: str | Path | None = None,
    codes_file: str | Path | None = None,
) -> tuple[AudioLM, dict[str, LoopReport]]:
    """Train the stages on the training split of a prepared corpus and save the model in `out`.

    Called again after a kill it goes on from its last checkpoint in `out`/run and ends with the same weights.

    Args:
        corpus_folder: made by `prepare_corpus`.
        semantic_tokenizer: makes the semantic codes.
        codec: makes the acoustic codes.
        config: the stages.
        out: folder of the model.
        tokens_folder: made by `tokenize_corpus` from the same corpus with this tokenizer: its codes are taken.
        codes_file: see `encode_utterances`.

    Raises:
        ConfigError: the codec does not fit the semantic tokenizer or the config.
        DataError: the corpus has no speech to train on.
    """
    utterances = encode_utterances(
        corpus_folder, semantic_tokenizer, codec, num_codebooks=config.num_codebooks, tokens_folder=tokens_folder,
        codes_file=codes_file,
    )  # fmt: skip
    if config.join_speakers:
        runs = [run for run in (config.semantic, config.coarse, config.fine) if run is not None]
        longest = max(run.lm.window_seconds for run in runs)
        repeat = frames_per_condition(semantic_tokenizer, codec, config.num_codebooks)
        num_codes = round(longest * semantic_tokenizer.frame_rate)
        utterances = join_speakers(utterances, num_codes, frames_per_condition=repeat, seed=config.seed)
    model = build_audiolm(semantic_tokenizer, codec, config, utterances)
    reports: dict[str, LoopReport] = {}
    for number, name in enumerate(STAGES):
        run: StageTrainConfig | None = getattr(config, name)
        if run is None:
            continue
        lm: TokenLM = getattr(model, name)
        stage = TokenLMStage(
            lm,
            utterances,
            code_rate=semantic_tokenizer.frame_rate,
            frames_per_condition=model.config.frames_per_condition,
            batch_size=run.batch_size,
            code_noise=run.code_noise,
            seed=config.seed + number,
        )
        reports[name] = train_stage(stage, run.loop, Path(out) / "run" / name, heads=lm.heads.parameters())
    model.eval().cpu()
    save_once(lambda: model.save_pretrained(out))
    return model, reports


def build_audiolm(
    semantic_tokenizer: Tokenizer, codec: Codec, config: AudioLMTrainConfig, utterances: Sequence[AcousticUtterance]
) -> AudioLM:
    """Return a fresh model that fits tokenizer and codec, the same for the same seed."""
    if not utterances:
        raise DataError("there are no utterances to train on; prepare a corpus with audio first")
    repeat = frames_per_condition(semantic_tokenizer, codec, config.num_codebooks)
    # Without repeats a code lasts as long as it lasts in this corpus, on average.
    total = sum(len(utterance.semantic) for utterance in utterances)
    kept = sum(len(remove_repeats(utterance.semantic)[0]) for utterance in utterances)
    rate = semantic_tokenizer.frame_rate * kept / total

    def stage(run: StageTrainConfig | None) -> StageLMConfig | None:
        return dataclasses.replace(run.lm, tokens_per_second=rate if run.lm.dedup else None) if run else None

    coarse = stage(config.coarse)
    assert coarse is not None, "the coarse stage is required by the config's type"
    model_config = AudioLMConfig(
        sizes=CodeSizes(
            num_conditions=semantic_tokenizer.codebook_size,
            codebook_size=codec.codebook_size,
            num_codebooks=config.num_codebooks,
            num_coarse=config.num_coarse,
        ),
        frame_rate=codec.frame_rate,
        frames_per_condition=repeat,
        semantic=stage(config.semantic),
        coarse=coarse,
        fine=stage(config.fine),
        prompt_seconds=config.prompt_seconds,
        semantic_fingerprint=semantic_tokenizer.fingerprint,
        codec_fingerprint=codec.fingerprint,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = AudioLM(model_config)
    if config.row_init == "centroid":
        if not isinstance(semantic_tokenizer, HasCentroids):
            raise ConfigError("row_init: centroid needs a semantic tokenizer with centroids; choose row_init: normal")
        vectors = codec.codebook_vectors()[: config.num_codebooks]
        start_at_vectors(model, semantic_tokenizer.centroids, vectors, seed=config.seed)
    return model


def join_speakers(
    utterances: Sequence[AcousticUtterance], num_codes: int, *, frames_per_condition: int, seed: int
) -> list[AcousticUtterance]:
    """Return longer utterances: those of one speaker end to end, in random order, of `num_codes` or a little more.

    What is left over of each speaker makes a shorter one. Utterances of unknown speakers stay alone.
    """
    joined: list[AcousticUtterance] = []
    waiting: dict[str, list[AcousticUtterance]] = {}
    for i in np.random.default_rng(seed).permutation(len(utterances)):
        # What one has more than the other at its end would shift all that comes after it.
        utterance = AcousticUtterance(*fit_to_codes(utterances[i], frames_per_condition), utterances[i].speaker)
        parts = waiting.setdefault(utterance.speaker, [])
        parts.append(utterance)
        if not utterance.speaker or sum(len(part.semantic) for part in parts) >= num_codes:
            joined.append(_end_to_end(waiting.pop(utterance.speaker)))
    return [*joined, *map(_end_to_end, waiting.values())]


def _end_to_end(parts: Sequence[AcousticUtterance]) -> AcousticUtterance:
    semantic = np.concatenate([part.semantic for part in parts])
    return AcousticUtterance(semantic, np.concatenate([part.acoustic for part in parts], axis=1), parts[0].speaker)
