"""Decode the unified LM: prompts and grammars in, parts out, in batches, with guards and counters.

    decoder = LMDecoder(model, processor)
    tag = TaskTag.of("ASR AST", "en", "fr")
    decoded = decoder.decode(processor(tag, ["greeting.flac"]), [tag.output_modalities], DecodingConfig())
    decoded[0].segments          # [TextSegment("good morning"), TextSegment("bonjour")]
    DecodeReport.of(decoded)     # how many did not end by themselves, looped, were too long, stayed empty

Works with any stock transformers causal LM. Sequences of any prompt length and any grammar share a batch; what one
becomes does not depend on the others. Equal to `generate()` under `grammar.GrammarLogitsProcessor`, but faster: the
head is cut (heads.py), the cache is written in place (cache.py), finished sequences leave.
"""

import inspect
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from speechllm.errors import ConfigError, DataError, VocabularyError
from speechllm.generation.cache import new_cache, select_rows
from speechllm.generation.grammar import MODALITIES, Grammar, Limits, Progress, head_rows
from speechllm.generation.heads import Forward, Plan, can_cut, cut_forward, unwrap
from speechllm.generation.sampling import SamplingConfig, choose, log_probability
from speechllm.processor import UnifiedProcessor
from speechllm.segments import CodeSegment, Segment

StopReason: TypeAlias = Literal["eos", "too_long", "loop"]
DEFAULT_FRAME_RATE = 25.0
"Hz; used for limits in seconds when the processor has no semantic tokenizer (AudioPaLM's rate)."


@dataclass(frozen=True, kw_only=True)
class CandidatesConfig:
    """Several spoken answers are drawn, and the one that the model itself hears best is kept (candidates.py)."""

    count: int = 4
    "Answers drawn for each input."
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.5))
    "How their semantic ids are chosen; they must differ, so not greedily."

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"candidates.count is {self.count}, expected at least 2 to choose from")
        if self.sampling.is_greedy:
            raise ConfigError("candidates.sampling is greedy, so all candidates are the same; set a temperature")


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How to decode."""

    text: SamplingConfig = field(default_factory=SamplingConfig)
    "How text ids are chosen."
    audio: SamplingConfig = field(default_factory=SamplingConfig)
    "How semantic ids are chosen."
    num_beams: int = 1
    "Beams for the leading text parts (1: none). What follows them is decoded from the best beam."
    length_penalty: float = 1.0
    "Beam scores are divided by length to this power; 0 compares plain log probabilities."
    min_text_tokens: int = 0
    "A text part may not close before."
    max_text_tokens: int = 256
    "A text part must close after this many ids."
    min_audio_tokens: int = 1
    "An audio part may not close before: an empty one cannot be played."
    max_audio_seconds: float = 30.0
    "An audio part must close after this."
    loop_repeats: int = 4
    "A pattern that stands this many times in a row is a loop, once it also spans the lengths below."
    loop_text_tokens: int = 24
    "Span of a loop in text ids; 0 switches the guard off."
    loop_audio_seconds: float = 4.0
    "Span of a loop in audio (speech holds steady sounds and silence for a while); 0 switches the guard off."
    batch_size: int = 32
    "Sequences decoded together."
    seed: int = 0
    "For sampling. Sequence i draws from a generator of (seed, i): the same in any batch."
    same_draws: bool = False
    "Every sequence draws from (seed, 0), so that a list gives what its items give alone, and equal items the same."
    candidates: CandidatesConfig | None = None
    "Draw several spoken answers where their text is known (TTS, chains), in place of `audio`; None: one."

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_text_tokens", "batch_size", "loop_repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("min_text_tokens", "min_audio_tokens", "loop_text_tokens", "loop_audio_seconds", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.max_audio_seconds <= 0:
            raise ConfigError(f"max_audio_seconds is {self.max_audio_seconds}, expected more than 0")
        if self.num_beams > 1 and not self.text.is_greedy:
            raise ConfigError(f"num_beams is {self.num_beams} and text is sampled; use one of the two")
        if self.candidates is not None and not self.text.is_greedy:
            raise ConfigError("candidates are compared by one text, but text is sampled; use one of the two")

    def limits(self, frame_rate: float) -> Limits:
        """Return the guards in ids."""
        max_audio = max(int(self.max_audio_seconds * frame_rate), 1)
        span = int(self.loop_audio_seconds * frame_rate)
        return Limits(
            min_tokens=(min(self.min_text_tokens, self.max_text_tokens), min(self.min_audio_tokens, max_audio)),
            max_tokens=(self.max_text_tokens, max_audio),
            loop_span=(self.loop_text_tokens, span),
            loop_period=(max(self.loop_text_tokens // 2, 1), max(span // 2, 1)),
            loop_repeats=self.loop_repeats,
        )


@dataclass(frozen=True, eq=False)
class Decoded:
    """What one prompt became."""

    ids: np.ndarray
    "int64 [T], closing marks included."
    segments: list[Segment]
    "One per part of the grammar."
    stop_reason: StopReason
    "eos if every part ended by itself; else the first guard that had to end one."
    score: float
    "Sum of the log probabilities (natural) of the ids, each among the ids that were legal there."


@dataclass(frozen=True, kw_only=True)
class DecodeReport:
    """Counts over many decoded sequences; several can be added."""

    num_sequences: int = 0
    num_tokens: int = 0
    no_eos: int = 0
    "Sequences that a guard had to end: loops + too_long."
    loops: int = 0
    too_long: int = 0
    empty: int = 0
    "Sequences with at least one part without content."

    @classmethod
    def of(cls, decoded: Iterable[Decoded]) -> Self:
        """Count."""
        items = list(decoded)
        loops = sum(item.stop_reason == "loop" for item in items)
        too_long = sum(item.stop_reason == "too_long" for item in items)
        return cls(
            num_sequences=len(items),
            num_tokens=sum(len(item.ids) for item in items),
            no_eos=loops + too_long,
            loops=loops,
            too_long=too_long,
            empty=sum(any(_is_empty(segment) for segment in item.segments) for item in items),
        )

    def __add__(self, other: "DecodeReport") -> "DecodeReport":
        return DecodeReport(**{name: getattr(self, name) + getattr(other, name) for name in vars(self)})


class LMDecoder:
    """Decodes one model with one processor. Holds no state between calls."""

    def __init__(self, model: nn.Module, processor: UnifiedProcessor, *, frame_rate: float | None = None):
        self.model, self.processor = unwrap(model), processor
        config: Any = self.model.config
        config = config.get_text_config(decoder=True)
        if config.vocab_size != processor.vocabulary.size:
            raise VocabularyError(
                f"the model has {config.vocab_size:,} rows but the processor's vocabulary has "
                f"{processor.vocabulary.size:,} ids; use the two that were made together"
            )
        tokenizer = processor.semantic_tokenizer
        self.frame_rate = frame_rate or (tokenizer.frame_rate if tokenizer else DEFAULT_FRAME_RATE)
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self.rows = [head_rows(processor, modality) for modality in MODALITIES]
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self.cut = can_cut(self.model, self.rows)

    def decode(
        self,
        prompts: Sequence[np.ndarray],
        grammars: Sequence[Grammar],
        config: DecodingConfig | None = None,
        places: Sequence[int] | None = None,
    ) -> list[Decoded]:
        """Decode every prompt under its grammar; results stand in the order of the prompts.

        Args:
            prompts: ids int64 [T] each, `<|next|>` at the end included (`UnifiedProcessor.encode_prompt`).
            grammars: the output modalities for each prompt (`TaskTag.output_modalities`).
            config: sampling, guards, batch size.
            places: numbers that seed the draws of each prompt, with the config's seed; None: as the config says.

        Raises:
            DataError: a prompt is empty, holds ids outside the vocabulary or fills the model's context.
        """
        config = config or DecodingConfig()
        if places is None and config.same_draws:
            places = [0] * len(prompts)
        if len(prompts) != len(grammars):
            raise DataError(f"{len(prompts)} prompts came with {len(grammars)} grammars; give one for each")
        for number, prompt in enumerate(prompts):
            self._check(number, np.asarray(prompt))
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                if config.num_beams > 1:
                    from speechllm.generation.beam import decode_with_beams

                    return decode_with_beams(self, prompts, grammars, config, places)
                return self.decode_from(prompts, grammars, config, places)
        finally:
            self.model.train(was_training)

    def stream(
        self, prompt: np.ndarray, grammar: Grammar, config: DecodingConfig | None = None
    ) -> Generator[int, None, Decoded]:
        """Yield the ids of one answer as they are written, closing marks included, and return what `decode` returns.

        Raises:
            ConfigError: beams, which know their text only at its end.
            DataError: see `decode`.
        """
        config = config or DecodingConfig()
        if config.num_beams > 1:
            raise ConfigError(f"num_beams is {config.num_beams}, and beams know their text only at its end; use 1")
        self._check(0, np.asarray(prompt))
        self.model.eval()
        batch = _Batch(self, cut_forward(self.model, self.rows, cut=self.cut), [prompt], [grammar], config)
        for ids in batch.steps([0]):
            yield int(ids[0])
        return batch.decoded(0)

    def decode_from(
        self,
        prompts: Sequence[np.ndarray],
        grammars: Sequence[Grammar],
        config: DecodingConfig,
        places: Sequence[int] | None = None,
    ) -> list[Decoded]:
        """Decode without beams (`decode` calls this; the model is in eval mode and gradients are off)."""
        places = range(len(prompts)) if places is None else places
        results: dict[int, Decoded] = {}
        # Neighbours in length share a batch: less padding.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        forward = cut_forward(self.model, self.rows, cut=self.cut)
        for start in range(0, len(order), config.batch_size):
            numbers = order[start : start + config.batch_size]
            batch = _Batch(self, forward, [prompts[i] for i in numbers], [grammars[i] for i in numbers], config)
            results.update(zip(numbers, batch.run([places[i] for i in numbers]), strict=True))
        return [results[i] for i in range(len(prompts))]

    def _check(self, number: int, prompt: np.ndarray) -> None:
        size = self.processor.vocabulary.size
        if prompt.ndim != 1 or len(prompt) == 0:
            raise DataError(f"prompt {number} has shape {prompt.shape}, expected at least one id [T]")
        if prompt.min() < 0 or prompt.max() >= size:
            raise DataError(f"prompt {number} holds ids {prompt.min()}..{prompt.max()}, expected 0..{size - 1}")
        if self.max_positions is not None and len(prompt) >= self.max_positions:
            raise DataError(
                f"prompt {number} has {len(prompt)} ids, but the model reads at most {self.max_positions} with its "
                "answer; split the input into shorter pieces"
            )


@dataclass(eq=False)
class ModelInputs:
    """A left-padded batch and the model's view of what it has read: mask, positions, cache."""

    decoder: LMDecoder
    prompts: Sequence[np.ndarray]
    reserve: int = 64
    mask: Bool[Tensor, "B T"] = field(init=False)
    next_position: Int[Tensor, " B"] = field(init=False)

    def __post_init__(self) -> None:
        B, T = len(self.prompts), max(len(prompt) for prompt in self.prompts)
        ids = np.full((B, T), self.decoder.processor.eos_id, dtype=np.int64)
        mask = np.zeros((B, T), dtype=bool)
        for b, prompt in enumerate(self.prompts):
            ids[b, T - len(prompt) :], mask[b, T - len(prompt) :] = prompt, True
        model: Any = self.decoder.model
        self.device: torch.device = model.device
        self.ids = torch.from_numpy(ids).to(self.device)
        self.mask = torch.from_numpy(mask).to(self.device)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.next_position = self.mask.sum(1)
        self.is_padded = bool((~self.mask).any())
        self.cache = new_cache(model.config, T + self.reserve)

    def model_inputs(self) -> dict[str, Any]:
        """Return the keyword arguments of the next call of the model."""
        inputs: dict[str, Any] = {"input_ids": self.ids, "past_key_values": self.cache, "use_cache": True}
        # Without padding no mask is given: models then take their fastest path.
        inputs["attention_mask"] = self.mask if self.is_padded else None
        if self.decoder.takes_positions:
            inputs["position_ids"] = self.positions
        return inputs

    def append(self, ids: Int[Tensor, " B"]) -> None:
        """Make the chosen ids the next input."""
        self.ids = ids[:, None]
        self.positions = self.next_position[:, None]
        self.next_position = self.next_position + 1
        if self.is_padded:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keep (and order) the given sequences."""
        self.ids, self.positions = self.ids[rows], self.positions[rows]
        self.mask, self.next_position = self.mask[rows], self.next_position[rows]
        self.is_padded = self.is_padded and bool((~self.mask).any())
        select_rows(self.cache, rows)


class _Batch:
    """One batch from prefill to the last sequence's end. Rows leave; `origin` says which prompt a row is."""

    def __init__(
        self,
        decoder: LMDecoder,
        forward: Forward,
        prompts: Sequence[np.ndarray],
        grammars: Sequence[Grammar],
        config: DecodingConfig,
    ):
        self.decoder, self.forward, self.config, self.grammars = decoder, forward, config, grammars
        processor = decoder.processor
        closing = (processor.vocabulary.next_id, processor.eos_id)
        self.progress = Progress(list(grammars), config.limits(decoder.frame_rate), closing)
        self.inputs = ModelInputs(decoder, prompts)
        self.blocked = [rows.blocked.to(self.inputs.device) for rows in decoder.rows]
        self.row_ids = [rows.ids.to(self.inputs.device) for rows in decoder.rows]
        self.lengths = np.array([len(prompt) for prompt in prompts])
        self.origin = np.arange(len(prompts))
        self.written: list[list[int]] = [[] for _ in prompts]
        self.scores = np.zeros(len(prompts))
        self.stops: list[list[str]] = [[] for _ in prompts]

    def run(self, numbers: Sequence[int]) -> list[Decoded]:
        """Decode; `numbers` are the prompts' places in the whole call, which seed their draws."""
        for _ in self.steps(numbers):
            pass
        return [self.decoded(b) for b in range(len(numbers))]

    def steps(self, numbers: Sequence[int]) -> Iterator[Int[np.ndarray, " B"]]:
        """Decode, and yield the id of every running row after each step."""
        generators = [np.random.default_rng([self.config.seed, number]) for number in numbers]
        limit = self.decoder.max_positions
        while True:
            ids, log_probs = self._step(generators)
            self._record(ids, log_probs)
            if limit is not None:
                self._stop_full(limit)
            yield ids
            if not self._keep_running(ids):
                break

    @torch.no_grad()
    def _step(self, generators: list[np.random.Generator]) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, " B"]]:
        modality, states = self.progress.modality, self.progress.states()
        plan = grouped(modality, self.inputs.device)
        ids = torch.zeros(len(modality), dtype=torch.int64, device=self.inputs.device)
        log_probs = torch.zeros(len(modality), device=self.inputs.device)
        for (rows, m), logits in zip(plan, self.forward(plan, self.inputs.model_inputs()), strict=True):
            where = slice(None) if rows is None else rows
            here = np.arange(len(modality)) if rows is None else rows.cpu().numpy()
            logits = logits.float() + block(self.blocked[m], states[here])
            sampling = self.config.text if MODALITIES[m] == "text" else self.config.audio
            uniforms = None
            if not sampling.is_greedy:
                uniforms = np.array([generators[self.origin[b]].random() for b in here])
            index = choose(logits, sampling, uniforms)
            ids[where] = self.row_ids[m][index]
            log_probs[where] = log_probability(logits, index)
        self._next = ids
        return ids.cpu().numpy(), log_probs.cpu().numpy()

    def _record(self, ids: Int[np.ndarray, " B"], log_probs: Float[np.ndarray, " B"]) -> None:
        running = np.flatnonzero(~self.progress.finished)
        for row in running:
            self.written[self.origin[row]].append(int(ids[row]))
        self.scores[self.origin[running]] += log_probs[running]
        self.progress.advance(ids)
        for row in running:
            self.stops[self.origin[row]] = self.progress.stops[row]

    def _stop_full(self, limit: int) -> None:
        """End the sequences that fill the model's context."""
        for row in np.flatnonzero(~self.progress.finished):
            if self.lengths[self.origin[row]] + len(self.written[self.origin[row]]) >= limit:
                self.progress.finished[row] = True
                self.stops[self.origin[row]].append("too_long")

    def _keep_running(self, ids: Int[np.ndarray, " B"]) -> bool:
        """Prepare the next step; False if nobody is left."""
        running = np.flatnonzero(~self.progress.finished)
        if not len(running):
            return False
        self.inputs.append(self._next)
        # Leaving costs a copy of the cache, so a few leave together.
        if len(running) <= 0.75 * len(ids):
            self.inputs.select(torch.from_numpy(running).to(self.inputs.device))
            self.progress = self.progress.select(running)
            self.origin = self.origin[running]
        return True

    def decoded(self, b: int) -> Decoded:
        """Return what prompt `b` has become."""
        ids = np.array(self.written[b], dtype=np.int64)
        return decoded_from(self.decoder.processor, ids, self.grammars[b], self.stops[b], float(self.scores[b]))


def decoded_from(
    processor: UnifiedProcessor, ids: np.ndarray, grammar: Grammar, stops: Sequence[str], score: float
) -> Decoded:
    """Return the result for the ids that were written and the reasons why their parts ended."""
    reason = next((stop for stop in stops if stop != "closed"), "eos")
    assert reason in ("eos", "too_long", "loop"), f"unknown stop reason {reason}"
    return Decoded(ids, processor.decode_target(ids, grammar), reason, score)


def grouped(modality: Int[np.ndarray, " B"], device: torch.device) -> Plan:
    """Return the groups of rows that share a modality."""
    if (modality == modality[0]).all():
        return [(None, int(modality[0]))]
    return [(torch.from_numpy(np.flatnonzero(modality == m)).to(device), m) for m in (0, 1)]


def block(blocked: Float[Tensor, "6 R"], states: Int[np.ndarray, " b"]) -> Float[Tensor, "#b R"]:
    """Return what is added to the logits of each row: -inf at illegal ids."""
    if (states == states[0]).all():
        return blocked[int(states[0])][None]
    return blocked[torch.from_numpy(states).to(blocked.device)]


def _is_empty(segment: Segment) -> bool:
    return len(segment.codes) == 0 if isinstance(segment, CodeSegment) else not segment.text.strip()
