"""AudioLM's three uses: speech from nothing, another voice for given content, and how a recording might go on.

    spoken = generate_unconditional(model, count=4, seconds=10, seed=0)       # list of GeneratedSpeech
    spoken = generate_acoustic(model, [semantic_codes], seed=0)               # content kept, voice and room drawn
    spoken = continue_speech(model, [prompt], seconds=7, seed=0)              # prompt: a VoicePrompt of 3 s
    audios = decode_codes([s.acoustic_codes for s in spoken], codec)          # generation/cascade.py

    coarse stage, a window of 10 s, then the next: its last 3 s stand there again as the prompt

    semantic   z z z z z z z z z z          and then       z z z|z z z z z z z
    coarse     P P P # # # # # # #                         # # #|# # # # # # #       P: the prompt's, #: drawn

The prompt's acoustic codes come after all the semantic ones, its own included; its fine codes are the recording's. The
fine stage goes by chunks of 3 s, all chunks of all rows as one batch. (AudioLM, arXiv:2209.03143, section 3; windows
as in SoundStorm's comparison with it, arXiv:2305.09636.)

Where repeats are removed, no code says how long it lasts. The coarse stage then closes a window itself, by EOS, or is
stopped at twice the expected length; and which semantic codes a window's last 3 s spoke is taken to be proportional.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from jaxtyping import Int

from speechllm.errors import CheckpointError, ConfigError, DataError
from speechllm.generation.acoustic import AcousticDecoding
from speechllm.generation.sampling import SamplingConfig
from speechllm.generation.token_lm import MAX_BATCH_TOKENS, StageRequest, generate_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.stage_layouts import STAGES, remove_repeats
from speechllm.models.token_lm import StageLMConfig, TokenLM

MAX_STRETCH, SLACK_SECONDS = 2.0, 0.5
"A window whose length the model draws ends, at the latest, at this multiple of the usual length plus so much."


@dataclass(frozen=True, kw_only=True)
class AudioLMSampling:
    """How each stage draws. The paper's temperatures are 0.6, 0.8, 0.6 (section 4)."""

    semantic: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.6))
    "Which words."
    coarse: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.8))
    "Which voice and how it speaks, where no prompt says it."
    fine: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.6))
    "Detail."
    max_batch_tokens: int = MAX_BATCH_TOKENS
    "Ids decoded at once."

    @classmethod
    def of(cls, config: AudioLMConfig) -> Self:
        """Return the temperatures that the model brings along."""
        own: dict[str, Any] = {}
        for name in STAGES:
            stage: StageLMConfig | None = getattr(config, name)
            if stage is not None and stage.temperature is not None:
                own[name] = SamplingConfig(temperature=stage.temperature)
        return cls(**own)


@dataclass(frozen=True, eq=False)
class GeneratedSpeech:
    """One piece of speech as codes, the prompt's included."""

    semantic_codes: Int[np.ndarray, " n"]
    "As the coarse stage reads them: without repeats if it was trained so."
    acoustic_codes: Int[np.ndarray, "K T"]
    num_prompt_frames: int = 0
    "So many frames at the start are the prompt's own."


def generate_unconditional(
    model: AudioLM, *, count: int, seconds: float, seed: int, sampling: AudioLMSampling | None = None
) -> list[GeneratedSpeech]:
    """Return `count` pieces of speech from nothing, up to about `seconds` long; piece i is a function of (seed, i)."""
    return continue_speech(model, [_no_prompt(model)] * count, seconds=seconds, seed=seed, sampling=sampling)


def generate_acoustic(
    model: AudioLM,
    semantic_codes: Sequence[np.ndarray],
    *,
    seed: int,
    sampling: AudioLMSampling | None = None,
) -> list[GeneratedSpeech]:
    """Return what the semantic codes of real audio say in voices that are drawn; row i is a function of (seed, i).

    Args:
        model: its semantic stage is not needed.
        semantic_codes: int [T] each, repeats included.
        seed: of all draws.
        sampling: in place of the model's temperatures.
    """
    rows = [np.asarray(codes, dtype=np.int64) for codes in semantic_codes]
    seeds = [(seed, i) for i in range(len(rows))]
    return _speak(model, rows, [_no_prompt(model)] * len(rows), seeds, sampling or AudioLMSampling.of(model.config))


def continue_speech(
    model: AudioLM,
    prompts: Sequence[VoicePrompt],
    *,
    seconds: float,
    seed: int,
    sampling: AudioLMSampling | None = None,
) -> list[GeneratedSpeech]:
    """Return each prompt with what may come after it, in its voice; row i is a function of (its prompt, seed, i).

    Args:
        model: with a semantic stage.
        prompts: some seconds of speech each (`encode_start`); 3 s in the paper.
        seconds: length of what is added, at most; it ends earlier where the model closes it.
        seed: of all draws.
        sampling: in place of the model's temperatures.

    Raises:
        CheckpointError: the model has no semantic stage.
    """
    if model.semantic is None:
        raise CheckpointError("this AudioLM has no semantic stage, so it cannot say what comes next; train one")
    if seconds <= 0:
        raise ConfigError(f"seconds = {seconds}, expected more than 0")
    sampling = sampling or AudioLMSampling.of(model.config)
    seeds = [(seed, i) for i in range(len(prompts))]
    starts = [_stage_codes(model.semantic, prompt.semantic_codes) for prompt in prompts]
    rate = model.config.code_rate(model.semantic.config)
    rows = extend_semantic(
        model.semantic, starts, num_codes=max(1, round(seconds * rate)), rate=rate, seeds=seeds, sampling=sampling
    )
    new = [codes[len(start) :] for codes, start in zip(rows, starts, strict=True)]
    return _speak(model, new, prompts, seeds, sampling)


def audiolm_codes(
    model: AudioLM,
    semantic_codes: Sequence[np.ndarray],
    voices: Sequence[VoicePrompt | None],
    decoding: AcousticDecoding,
    *,
    seed: int,
) -> list[np.ndarray]:
    """Return acoustic codes [K, T] for each row of semantic codes: the `AcousticStage` of coarse and fine."""
    sampling = AudioLMSampling.of(model.config)
    coarse = sampling.coarse if decoding.temperature is None else SamplingConfig(temperature=decoding.temperature)
    limit = decoding.max_batch_frames * model.config.num_codebooks
    sampling = AudioLMSampling(coarse=coarse, fine=sampling.fine, max_batch_tokens=limit)
    prompts = [_no_prompt(model) if voice is None else voice for voice in voices]
    # The same noise for each row: none depends on its place in the batch.
    spoken = _speak(model, semantic_codes, prompts, [(seed,)] * len(prompts), sampling)
    return [one.acoustic_codes[:, one.num_prompt_frames :] for one in spoken]


def extend_semantic(
    lm: TokenLM,
    starts: Sequence[np.ndarray],
    *,
    num_codes: int,
    rate: float,
    seeds: Sequence[tuple[int, ...]],
    sampling: AudioLMSampling,
) -> list[Int[np.ndarray, " n"]]:
    """Return each row with up to `num_codes` more semantic codes; beyond the window its latter half is the prompt.

    Args:
        lm: the semantic stage.
        starts: codes of each row so far, without repeats if the stage was trained so.
        num_codes: codes to add, at most.
        rate: semantic codes a second, as the stage counts them.
        seeds: of each row's draws.
        sampling: how to draw.
    """
    window = max(2, round(lm.config.window_seconds * rate))
    rows, goals = list(starts), [len(codes) + num_codes for codes in starts]
    running, turn = list(range(len(rows))), 0
    while running:
        requests = []
        for i in running:
            given = rows[i] if len(rows[i]) < window else rows[i][-(window // 2) :]
            request = StageRequest(
                prefix=np.zeros((0, 0), np.int64),
                given=given[None],
                # Speech of no length at all cannot be played.
                min_frames=0 if len(rows[i]) else 1,
                max_frames=min(goals[i] - len(rows[i]), window - len(given)),
                seed=(*seeds[i], STAGES.index("semantic"), turn),
            )
            requests.append(request)
        drawn = generate_codes(lm, requests, sampling.semantic, max_batch_tokens=sampling.max_batch_tokens)
        for i, new in zip(running, drawn, strict=True):
            rows[i] = np.concatenate((rows[i], new.codes[0]))
        running = [i for i, new in zip(running, drawn, strict=True) if not new.ended and len(rows[i]) < goals[i]]
        turn += 1
    return rows


def _speak(
    model: AudioLM,
    new_codes: Sequence[np.ndarray],
    prompts: Sequence[VoicePrompt],
    seeds: Sequence[tuple[int, ...]],
    sampling: AudioLMSampling,
) -> list[GeneratedSpeech]:
    """Give sound to semantic codes that come after the prompts'."""
    rows = [
        _CoarseRow(model, codes, prompt, seed) for codes, prompt, seed in zip(new_codes, prompts, seeds, strict=True)
    ]
    turn = 0
    while running := [row for row in rows if row.spoken < len(row.codes)]:
        requests = [row.next_window(turn) for row in running]
        drawn = generate_codes(model.coarse, requests, sampling.coarse, max_batch_tokens=sampling.max_batch_tokens)
        for row, new in zip(running, drawn, strict=True):
            row.frames = np.concatenate((row.frames, new.codes), axis=1)
        turn += 1
    added = _add_fine(model, [row.frames[:, row.num_prompt_frames :] for row in rows], seeds, sampling)
    return [
        GeneratedSpeech(row.codes, np.concatenate((row.prompt, new), axis=1), row.num_prompt_frames)
        for row, new in zip(rows, added, strict=True)
    ]


class _CoarseRow:
    """Where one row stands: `spoken` of its semantic codes have sound, which is `frames`."""

    def __init__(self, model: AudioLM, codes: np.ndarray, prompt: VoicePrompt, seed: tuple[int, ...]):
        config, self.lm, self.seed = model.config, model.coarse, seed
        if prompt.acoustic_codes.shape[0] < config.num_codebooks:
            raise DataError(
                f"the prompt has {prompt.acoustic_codes.shape[0]} acoustic levels, expected {config.num_codebooks}; "
                "encode it with this model's codec"
            )
        self.prompt = prompt.acoustic_codes[: config.num_codebooks]
        self.frames = self.prompt[: config.sizes.num_coarse]
        self.num_prompt_frames = self.frames.shape[1]
        # Repeats are removed on each side of the seam: whatever is new has a code of its own.
        parts = [_stage_codes(self.lm, part) for part in (prompt.semantic_codes, codes)]
        self.codes, self.spoken = np.concatenate(parts), len(parts[0])
        # Codes and first frame of the last window; at first, of the prompt.
        self.window_codes, self.window_start = self.spoken, 0
        self.overlap = round(config.prompt_seconds * config.frame_rate)
        rate = config.code_rate(self.lm.config)
        self.max_codes = max(2, round(self.lm.config.window_seconds * rate))
        self.frames_per_code = config.frame_rate / rate
        self.slack = math.ceil(SLACK_SECONDS * config.frame_rate)

    def next_window(self, turn: int) -> StageRequest:
        """Return the request for the codes that come next, and count them as spoken."""
        kept_codes, kept_frames = self._kept()
        begin = self.spoken - kept_codes
        end = min(max(begin + self.max_codes, self.spoken + 1), len(self.codes))
        expected = (end - self.spoken) * self.frames_per_code
        least = most = round(expected)
        if self.lm.config.dedup:
            least, most = 1, math.ceil(MAX_STRETCH * expected) + self.slack
        self.window_codes, self.window_start = end - begin, self.frames.shape[1] - kept_frames
        self.spoken = end
        return StageRequest(
            prefix=self.codes[None, begin:end],
            given=self.frames[:, self.window_start :],
            min_frames=least,
            max_frames=most,
            seed=(*self.seed, STAGES.index("coarse"), turn),
        )

    def _kept(self) -> tuple[int, int]:
        """Return how many codes and frames of the last window open the next one."""
        length = self.frames.shape[1] - self.window_start
        if length == 0 or self.window_codes == 0:
            return 0, 0
        frames = min(self.overlap, length)
        # Half a window at most, so that each window says something new.
        codes = min(round(self.window_codes * frames / length), self.max_codes // 2)
        return codes, min(frames, round(length * codes / self.window_codes))


def _add_fine(
    model: AudioLM, rows: Sequence[np.ndarray], seeds: Sequence[tuple[int, ...]], sampling: AudioLMSampling
) -> list[Int[np.ndarray, "K T"]]:
    """Return coarse codes [Q', T] with the fine levels below them; the last chunk of a row may be short."""
    if model.fine is None:
        return list(rows)
    size = max(1, round(model.fine.config.window_seconds * model.config.frame_rate))
    requests, owners = [], []
    for i, coarse in enumerate(rows):
        for turn, start in enumerate(range(0, coarse.shape[1], size)):
            chunk = coarse[:, start : start + size]
            given = np.zeros((model.fine.layout.num_levels, 0), np.int64)
            T, seed = chunk.shape[1], (*seeds[i], STAGES.index("fine"), turn)
            requests.append(StageRequest(prefix=chunk, given=given, min_frames=T, max_frames=T, seed=seed))
            owners.append(i)
    drawn = generate_codes(model.fine, requests, sampling.fine, max_batch_tokens=sampling.max_batch_tokens)
    chunks: list[list[np.ndarray]] = [[np.zeros((model.fine.layout.num_levels, 0), np.int64)] for _ in rows]
    for i, new in zip(owners, drawn, strict=True):
        chunks[i].append(new.codes)
    return [np.concatenate((coarse, np.concatenate(fine, axis=1))) for coarse, fine in zip(rows, chunks, strict=True)]


def _stage_codes(lm: TokenLM, codes: np.ndarray) -> np.ndarray:
    """Return semantic codes as the stage was trained on them."""
    return remove_repeats(codes)[0] if lm.config.dedup else codes


def _no_prompt(model: AudioLM) -> VoicePrompt:
    return VoicePrompt(np.zeros(0, np.int64), np.zeros((model.config.num_codebooks, 0), np.int64))
