"""Training SoundStorm: mask some frames of one level, guess them from everything that is known.

    stage = SoundStormStage(model, utterances, SoundStormTrainConfig(), seed=0)
    train_stage(stage, LoopConfig(steps=400), "runs/soundstorm")

    level 0   a b c d e f        t = 2 prompt frames are known in full; level q = 1 loses some of the
    level 1   g h # j # #        frames after them (share cos u, u uniform in 0 .. pi/2); the levels above
    level 2   m n # # # #        lose all. The loss is the mean cross-entropy of the masked codes of level q.

(SoundStorm, arXiv:2305.09636, section 3.3.) Two additions, both switches: the prompt may be another
utterance of the same speaker, as in use, so that the voice must come from it; and tied models also
learn the frame's vector by its squared error. A model that tells speakers apart (`num_speakers`) learns it from
dialogues that are made of single utterances (`training/dialogues.py`), behind a prompt of each speaker.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from speechllm.data.tokenize import Tokenizer
from speechllm.errors import ConfigError, DataError
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig, TiedCodes, mark_speaker, take_weights
from speechllm.nn.conformer import ConformerConfig, length_mask
from speechllm.tokenizers.codec import Codec
from speechllm.training.dialogues import DialogueConfig, Turn, plan_rows
from speechllm.training.loop import LoopConfig, LoopReport, save_once, train_stage
from speechllm.training.utterances import AcousticUtterance, encode_utterances, fit_to_codes

LENGTH_MULTIPLE = 32
"Batches are padded to a multiple of so many frames."


@dataclass(frozen=True, kw_only=True)
class SoundStormTrainConfig:
    """What a batch holds and what is asked of it."""

    max_frames: int = 3_000
    "Codec frames in a batch, padding included; an utterance that is longer with its prompt makes one by itself."
    prompt_seconds: tuple[float, float] = (3.0, 3.0)
    "Shortest and longest prompt from another utterance of the speaker; each batch draws its length."
    prompt_share: float = 0.9
    "Share of rows with such a prompt; the others draw a prefix of their own as the paper does. 0: the paper's form."
    first_level_share: float | None = None
    "Share of rows that train level 0; None: all levels alike, as in the paper."
    all_masked_share: float = 0.0
    "Share of the rows of level 0 with every frame masked, as when a model with `at_once` speaks. 0: the paper's masks."
    vector_loss: float = 1.0
    "Weight of the squared error of the frame's vector (tied models)."
    own_mistakes: float = 0.5
    """Share of rows (tied models with a linear start) whose lower levels are the start's codes, not the recording's, as
    in use; the target is then the code that corrects them best. 0: the paper's training."""
    label_smoothing: float = 0.0
    "Share of the target spread over all codes; 0.1 in MaskGIT."
    dialogues: DialogueConfig = field(default_factory=DialogueConfig)
    "Utterances that are joined into dialogues, for models that tell speakers apart."


@dataclass(frozen=True, kw_only=True)
class SoundStormStageConfig:
    """A whole run: the model, its batches, the loop."""

    loop: LoopConfig
    "Steps, optimizer, precision."
    num_codebooks: int
    "Levels of the codec that are modelled, from the coarsest on."
    trunk: ConformerConfig = field(default_factory=ConformerConfig)
    "Sizes of the Conformer."
    tied: bool = True
    "See `SoundStormConfig.tied`."
    start_context: int | None = 2
    "See `SoundStormConfig.start_context`."
    temperature: float = 0.5
    "See `SoundStormConfig.temperature`."
    at_once: bool = False
    "See `SoundStormConfig.at_once`."
    max_frames: int | None = 1_500
    "See `SoundStormConfig.max_frames`; about the longest row that is trained on serves well."
    num_speakers: int = 1
    "See `SoundStormConfig.num_speakers`; above 1 `batches.dialogues` must make dialogues."
    start_from: str | None = None
    """Folder of a trained SoundStorm to go on from, of the same sizes, codec and tokenizer; it may lack the marks of
    speakers. None: fresh weights."""
    batches: SoundStormTrainConfig = field(default_factory=SoundStormTrainConfig)
    "What a batch holds."
    seed: int = 0
    "Of initial weights, order and masks."


class MaskedCodes(NamedTuple):
    """What `mask_codes` returns."""

    codes: Int[Tensor, "B K T"]
    "Input codes with MASK."
    level: Int[Tensor, " B"]
    "The level q* that is trained."
    loss_mask: Bool[Tensor, "B T"]
    "Frames whose code of that level is masked and asked for; at least one a row."


def mask_codes(
    codes: Int[Tensor, "B K T"],
    lengths: Int[Tensor, " B"],
    *,
    mask_id: int,
    generator: torch.Generator,
    prompt_lengths: Int[Tensor, " B"] | None = None,
    first_level_share: float | None = None,
    all_masked_share: float = 0.0,
) -> MaskedCodes:
    """Mask codes for training (SoundStorm, section 3.3). Prompt, level and share are drawn for each row.

    Args:
        codes: complete codes.
        lengths: frames of each row.
        mask_id: id of MASK.
        generator: source of all draws.
        prompt_lengths: frames that are never masked; -1 or None: drawn uniformly from 0 .. length - 1.
        first_level_share: probability of level 0; None: levels are alike.
        all_masked_share: probability that a row of level 0 has all its frames masked.
    """
    B, K, T = codes.shape
    drawn = (torch.rand(B, generator=generator) * lengths).long()
    prompts = drawn if prompt_lengths is None else torch.where(prompt_lengths < 0, drawn, prompt_lengths)
    level = torch.randint(K, (B,), generator=generator)
    if first_level_share is not None and K > 1:
        higher = torch.randint(1, K, (B,), generator=generator)
        level = torch.where(torch.rand(B, generator=generator) < first_level_share, torch.zeros_like(level), higher)
    share = torch.cos(torch.rand(B, generator=generator) * torch.pi / 2)
    if all_masked_share > 0:
        share = share.masked_fill((level == 0) & (torch.rand(B, generator=generator) < all_masked_share), 1)
    maskable = length_mask(lengths, T) & ~length_mask(prompts, T)
    chance = torch.rand(B, T, generator=generator)
    masked = maskable & (chance < share[:, None])
    # A row without a masked frame would teach nothing: the frame with the smallest draw is masked.
    first = chance.masked_fill(~maskable, torch.inf).argmin(1)
    masked[torch.arange(B), first] |= ~masked.any(1)
    above = torch.arange(K)[None, :, None] > level[:, None, None]
    at = torch.arange(K)[None, :, None] == level[:, None, None]
    hidden = (above & ~length_mask(prompts, T)[:, None]) | (at & masked[:, None])
    return MaskedCodes(codes.masked_fill(hidden, mask_id), level, masked)


class SoundStormBatch(NamedTuple):
    """One batch, masked."""

    condition: Int[Tensor, "B T"]
    codes: Int[Tensor, "B K T"]
    lengths: Int[Tensor, " B"]
    masked: MaskedCodes
    own: Bool[Tensor, " B"]
    "Rows that see their own mistakes."


class _Row(NamedTuple):
    """One row of a batch."""

    condition: np.ndarray
    codes: np.ndarray
    num_prompt_frames: int
    "-1: to be drawn."


class SoundStormStage:
    """A `Stage`: batches are a function of (seed, step), every utterance comes once an epoch."""

    def __init__(
        self,
        model: SoundStorm,
        utterances: Sequence[AcousticUtterance],
        config: SoundStormTrainConfig,
        *,
        frame_rate: float,
        seed: int,
    ):
        if not utterances:
            raise DataError("there are no utterances to train on; prepare a corpus with audio first")
        self.model: nn.Module = model
        self.config, self.seed, self.model_config = config, seed, model.config
        # The loop may wrap `model`; its codes hold the codebook vectors.
        self.codes, self.start = model.codes, model.start
        self.num_codebooks, self.mask_id = model.config.num_codebooks, model.mask_id
        self.repeat = model.config.frames_per_condition
        self.utterances = [fit_to_codes(utterance, self.repeat) for utterance in utterances]
        self.code_rate = frame_rate / self.repeat
        self.speakers = [utterance.speaker for utterance in utterances]
        self._check_dialogues()
        self.peers = _same_speaker(self.speakers)
        self._epoch: tuple[int, list[tuple[int, list[tuple[Turn, ...]]]]] = (-1, [])
        self._starts = [0]

    def batch(self, step: int) -> SoundStormBatch:
        """Return batch `step`."""
        epoch = self._epoch_of(step)
        prompt_codes, rows = self._batches(epoch)[step - self._starts[epoch]]
        rng = np.random.default_rng((self.seed, 1, step))
        pieces = [self._row(row, prompt_codes, rng) for row in rows]
        lengths = torch.tensor([len(piece.condition) for piece in pieces])
        T = padded_length(int(lengths.max()))
        condition = torch.zeros(len(rows), T, dtype=torch.long)
        codes = torch.zeros(len(rows), self.num_codebooks, T, dtype=torch.long)
        for b, piece in enumerate(pieces):
            condition[b, : lengths[b]] = torch.from_numpy(piece.condition)
            codes[b, :, : lengths[b]] = torch.from_numpy(piece.codes)
        masked = mask_codes(
            codes,
            lengths,
            mask_id=self.mask_id,
            generator=torch.Generator().manual_seed(int(rng.integers(2**62))),
            prompt_lengths=torch.tensor([piece.num_prompt_frames for piece in pieces]),
            first_level_share=self.config.first_level_share,
            all_masked_share=self.config.all_masked_share,
        )
        own = torch.from_numpy(rng.random(len(rows)) < self.config.own_mistakes)
        return SoundStormBatch(condition, codes, lengths, masked, own)

    def loss(self, batch: SoundStormBatch) -> tuple[Tensor, dict[str, float]]:
        """Return cross-entropy over masked codes, plus the squared error of their vectors in tied models."""
        masked = batch.masked
        codes, target = self._seen_and_wanted(batch)
        output = self.model(batch.condition, codes, batch.lengths, masked.level)
        logits, wanted = output.logits[masked.loss_mask], target[masked.loss_mask]
        cross_entropy = nn.functional.cross_entropy(logits, wanted, label_smoothing=self.config.label_smoothing)
        numbers = {
            "cross_entropy": cross_entropy.item(),
            "accuracy": float((logits.argmax(-1) == wanted).float().mean()),
        }
        if output.vectors is None or not isinstance(self.codes, TiedCodes):
            return cross_entropy, numbers
        whole = self.codes.known_sum(batch.codes)
        error = (output.vectors - whole)[masked.loss_mask].square().mean()
        return cross_entropy + self.config.vector_loss * error, {**numbers, "vector_error": error.item()}

    @torch.no_grad()
    def _seen_and_wanted(self, batch: SoundStormBatch) -> tuple[Int[Tensor, "B K T"], Int[Tensor, "B T"]]:
        """Return the codes that the model sees and the codes of each row's level that it should find."""
        masked, level = batch.masked, batch.masked.level
        target = batch.codes[torch.arange(len(level), device=level.device), level]
        if self.start is None or not isinstance(self.codes, TiedCodes):
            return masked.codes, target
        with torch.autocast(level.device.type, enabled=False):
            own = self.codes.quantise(self.start(batch.condition, batch.lengths))
            is_lower = torch.arange(self.num_codebooks, device=level.device)[None, :, None] < level[:, None, None]
            replaced = is_lower & masked.loss_mask[:, None, :] & batch.own[:, None, None]
            codes = torch.where(replaced, own, masked.codes)
            rest = self.codes.known_sum(batch.codes) - self.codes.known_sum(codes, below=level)
            for b in (batch.own & (level > 0)).nonzero()[:, 0].tolist():
                target[b] = self.codes.nearest(rest[b : b + 1], int(level[b]))[0]
        return codes, target

    def _check_dialogues(self) -> None:
        has_dialogues = self.config.dialogues.share > 0
        if has_dialogues != (self.model_config.num_speakers > 1):
            raise ConfigError(
                f"dialogues.share = {self.config.dialogues.share} with num_speakers = "
                f"{self.model_config.num_speakers}; marks of speakers are learnt from dialogues, set both or neither"
            )
        if has_dialogues and len({speaker for speaker in self.speakers if speaker}) < 2:
            raise DataError("the utterances name fewer than two speakers, so there is no dialogue to learn from")

    def _row(self, row: tuple[Turn, ...], prompt_codes: int, rng: np.random.Generator) -> _Row:
        """Return a row: the prompts of its speakers, in the order of their marks, and what they say."""
        prompts = self._prompts(row, prompt_codes, rng)
        parts = [*prompts, *((turn.mark, *self.utterances[turn.utterance]) for turn in row)]
        conditions = [mark_speaker(semantic, mark, self.model_config) for mark, semantic, _ in parts]
        return _Row(
            np.repeat(np.concatenate(conditions), self.repeat),
            np.concatenate([acoustic for _, _, acoustic in parts], axis=1),
            len(prompts) * prompt_codes * self.repeat if prompts else -1,
        )

    def _prompts(
        self, row: tuple[Turn, ...], prompt_codes: int, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return mark, semantic and acoustic codes of each speaker's prompt; nothing if the row has none."""
        if not all(self.peers[turn.utterance] for turn in row) or rng.random() >= self.config.prompt_share:
            return []
        said, prompts = {turn.utterance for turn in row}, []
        for mark, index in sorted({turn.mark: turn.utterance for turn in row}.items()):
            others = self.peers[index]
            start = int(rng.integers(len(others)))
            other = next((i for i in [*others[start:], *others[:start]] if i not in said), None)
            if other is None:
                return []
            voice, sound = self.utterances[other]
            # Tiled when shorter, like the prompts in use.
            copies = -(-prompt_codes // len(voice))
            sound = np.tile(sound, copies)[:, : prompt_codes * self.repeat]
            prompts.append((mark, np.tile(voice, copies)[:prompt_codes], sound))
        return prompts

    def _epoch_of(self, step: int) -> int:
        """Return the epoch of a step: epochs differ by a few batches, so their ends are counted up."""
        while self._starts[-1] <= step:
            self._starts.append(self._starts[-1] + len(self._batches(len(self._starts) - 1)))
        return bisect.bisect_right(self._starts, step) - 1

    def _batches(self, epoch: int) -> list[tuple[int, list[tuple[Turn, ...]]]]:
        """Return the batches of an epoch, (length of a prompt, rows of like length), in random order."""
        if self._epoch[0] != epoch:
            rows = plan_rows(
                self.speakers,
                self.config.dialogues,
                num_speakers=self.model_config.num_speakers,
                rng=np.random.default_rng((self.seed, 2, epoch)),
            )
            rng = np.random.default_rng((self.seed, 0, epoch))
            sizes = np.array([self._num_frames(row, 0) for row in rows])
            batches: list[tuple[int, list[tuple[Turn, ...]]]] = []
            # Noise on the lengths, so that an utterance meets different neighbours in each epoch.
            for i in np.argsort(sizes * rng.uniform(0.9, 1.1, len(sizes))).tolist():
                if not batches or not self._has_room(*batches[-1], rows[i]):
                    seconds = rng.uniform(*self.config.prompt_seconds)
                    batches.append((max(1, round(seconds * self.code_rate)), []))
                batches[-1][1].append(rows[i])
            self._epoch = (epoch, [batches[i] for i in rng.permutation(len(batches))])
        return self._epoch[1]

    def _has_room(self, prompt_codes: int, rows: list[tuple[Turn, ...]], more: tuple[Turn, ...]) -> bool:
        longest = max(self._num_frames(row, prompt_codes) for row in (*rows, more))
        return padded_length(longest) * (len(rows) + 1) <= self.config.max_frames

    def _num_frames(self, row: tuple[Turn, ...], prompt_codes: int) -> int:
        """Return the frames of a row with a prompt of so many codes for each of its speakers."""
        prompts = len({turn.mark for turn in row}) * prompt_codes if self.config.prompt_share > 0 else 0
        return sum(self.utterances[turn.utterance][1].shape[1] for turn in row) + prompts * self.repeat


def padded_length(num_frames: int) -> int:
    """Return the length of a batch: kernels are made anew for every new size, which costs more than some padding."""
    return -(-num_frames // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _same_speaker(speakers: Sequence[str]) -> list[list[int]]:
    """Return for each utterance those of its speaker; none where the speaker is unknown or said nothing else."""
    by_speaker: dict[str, list[int]] = {}
    for i, speaker in enumerate(speakers):
        by_speaker.setdefault(speaker, []).append(i)
    return [by_speaker[s] if s and len(by_speaker[s]) > 1 else [] for s in speakers]


def train_soundstorm(
    corpus_folder: str | Path,
    semantic_tokenizer: Tokenizer,
    codec: Codec,
    config: SoundStormStageConfig,
    out: str | Path,
    *,
    tokens_folder: str | Path | None = None,
    codes_file: str | Path | None = None,
) -> tuple[SoundStorm, LoopReport]:
    """Train SoundStorm on the training split of a prepared corpus and save it in `out`.

    Called again after a kill it goes on from its last checkpoint in `out`/run and ends with the same weights. See
    `encode_utterances` for where codes come from.

    Raises:
        ConfigError: the codec's frame rate is no whole multiple of the semantic tokenizer's.
        DataError: the corpus has no speech to train on.
    """
    utterances = encode_utterances(
        corpus_folder, semantic_tokenizer, codec, num_codebooks=config.num_codebooks, tokens_folder=tokens_folder,
        codes_file=codes_file,
    )  # fmt: skip
    model = build_soundstorm(semantic_tokenizer, codec, config)
    if config.start_from is None:
        fit_start(model, utterances)
    else:
        take_weights(model, config.start_from)
    stage = SoundStormStage(model, utterances, config.batches, frame_rate=codec.frame_rate, seed=config.seed)
    report = train_stage(stage, config.loop, Path(out) / "run")
    model.eval().cpu()
    save_once(lambda: model.save_pretrained(out))
    return model, report


def build_soundstorm(semantic_tokenizer: Tokenizer, codec: Codec, config: SoundStormStageConfig) -> SoundStorm:
    """Return a fresh model that fits tokenizer and codec, the same for the same seed."""
    repeat = frames_per_condition(semantic_tokenizer, codec, config.num_codebooks)
    vectors = codec.codebook_vectors()[: config.num_codebooks]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = SoundStorm(
            SoundStormConfig(
                num_conditions=semantic_tokenizer.codebook_size,
                num_codebooks=config.num_codebooks,
                codebook_size=codec.codebook_size,
                frames_per_condition=repeat,
                tied=config.tied,
                start_context=config.start_context,
                temperature=config.temperature,
                at_once=config.at_once,
                max_frames=config.max_frames,
                num_speakers=config.num_speakers,
                codebook_width=vectors.shape[2] if config.tied else 0,
                trunk=config.trunk,
                semantic_fingerprint=semantic_tokenizer.fingerprint,
                codec_fingerprint=codec.fingerprint,
            )
        )
    if isinstance(model.codes, TiedCodes):
        model.codes.set_codebooks(vectors)
    return model


def frames_per_condition(semantic_tokenizer: Tokenizer, codec: Codec, num_codebooks: int) -> int:
    """Return how many codec frames a semantic code lasts, once it is sure that the two fit each other.

    Raises:
        ConfigError: the codec's frame rate is no whole multiple, or it has fewer levels than asked for.
    """
    repeat = codec.frame_rate / semantic_tokenizer.frame_rate
    if repeat != round(repeat) or repeat < 1:
        raise ConfigError(
            f"the codec has {codec.frame_rate:g} frames a second, the semantic tokenizer "
            f"{semantic_tokenizer.frame_rate:g}; expected a whole multiple"
        )
    if not 1 <= num_codebooks <= codec.num_codebooks:
        raise ConfigError(f"num_codebooks = {num_codebooks}, the codec has {codec.num_codebooks}")
    return round(repeat)


def fit_start(model: SoundStorm, utterances: Sequence[AcousticUtterance]) -> None:
    """Fit the model's linear start, if it has one, to the training utterances."""
    if model.start is None or not isinstance(model.codes, TiedCodes):
        return
    pairs = [fit_to_codes(utterance, model.config.frames_per_condition) for utterance in utterances]
    codes = model.codes
    vectors = (codes.known_sum(torch.from_numpy(acoustic)[None])[0] for _, acoustic in pairs)
    model.start.fit([semantic for semantic, _ in pairs], vectors)
