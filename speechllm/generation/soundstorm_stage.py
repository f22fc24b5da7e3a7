"""SoundStorm on whole utterances: voice prompts, dialogues, speech longer than a window, and spans made anew.

    codes = soundstorm_codes(model, [semantic_a, semantic_b], [voice, None], AcousticDecoding(), seed=0)
    turns = dialogue_codes(model, [[(0, hello), (1, hi), (0, bye)]], [[ann, bob]], AcousticDecoding(), seed=0)
    codes = infill_codes(model, speech, (20, 45), new_semantic, AcousticDecoding(), seed=0)

    condition   v v v v | s s s s s s s s        each semantic code repeated to the codec's rate
    acoustic    V V V V | # # # # # # # #        #: unknown; the prompt's frames are dropped at the end

Speech beyond the window of the model (`SoundStormConfig.max_frames`) is made window by window. What was said last, a
tenth of a window (3 s of 30), stands before the next window as its acoustic prompt, behind the voice prompt if there
is one: with it every window hears the voice itself, not a copy of a copy.

    window 2    v v v v | c c c | s s s s s      c: the last codes of window 1, with their sound

A dialogue is one such row, too: the prompts of all speakers stand before every window, and each condition is marked
with who speaks it (`mark_speaker`).

    condition   a a a b b b | s s s s s s s s
    speaker     0 0 0 1 1 1 | 0 0 1 1 1 0 0 1

(SoundStorm, arXiv:2305.09636, sections 3.4 and 4, and its dialogue synthesis; the windows are AudioLM's
slide-and-prompt, arXiv:2209.03143.)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from speechllm.errors import ConfigError, DataError
from speechllm.generation.acoustic import AcousticDecoding, require_codes, require_speech
from speechllm.generation.soundstorm import default_iterations, fill_at_once, soundstorm_fill, soundstorm_infill
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig, mark_speaker

CONTEXT_SHARE = 0.1
"Share of a window that repeats the end of the one before."
AHEAD_SHARE = 0.02
"""Share of a window at its end that is made, but left to the next window to say. Without a view of what comes next,
sound ends as at the end of a sentence: where windows met spectra jumped by 9.6 and 9.8 dB in two small models, by 4.1
and 4.3 dB at the same places in one pass; with it by 4.9 and 8.3 dB, beside 4.6 and 7.2."""
WINDOW_SEED_STEP = 1_000_003
SpokenTurn: TypeAlias = tuple[int, np.ndarray]
"A speaker, counted from 0, and semantic codes [T]."


def soundstorm_codes(
    model: SoundStorm,
    semantic_codes: Sequence[np.ndarray],
    voices: Sequence[VoicePrompt | None],
    decoding: AcousticDecoding,
    *,
    seed: int,
) -> list[np.ndarray]:
    """Return acoustic codes [K, T] for each row of semantic codes: SoundStorm's `AcousticStage`."""
    rows = [_Utterance(codes, voice, model.config) for codes, voice in zip(semantic_codes, voices, strict=True)]
    turn = 0
    while running := [row for row in rows if row.spoken < len(row.codes)]:
        windows = [row.next_window() for row in running]
        filled = _fill(model, windows, decoding, seed + turn * WINDOW_SEED_STEP)
        for row, window, codes in zip(running, windows, filled, strict=True):
            row.add(codes[:, window.unknown])
        turn += 1
    return [row.frames for row in rows]


def dialogue_codes(
    model: SoundStorm,
    dialogues: Sequence[Sequence[SpokenTurn]],
    voices: Sequence[Sequence[VoicePrompt]],
    decoding: AcousticDecoding,
    *,
    seed: int,
) -> list[list[np.ndarray]]:
    """Return the acoustic codes [K, T] of each turn of each dialogue; all turns of one are made together.

    Args:
        model: SoundStorm with marks for the speakers (`SoundStormConfig.num_speakers`).
        dialogues: turns (speaker, semantic codes [T]) in order; speakers count from 0.
        voices: a prompt for each speaker of each dialogue, in their order; none at all: voices are drawn.
        decoding: how acoustic codes are drawn.
        seed: of the draws.

    Raises:
        ConfigError: the model has no marks for so many speakers.
        DataError: a turn is of a speaker without a voice.
        VocabularyError: a code is outside the semantic codebook, or a voice is of another codec.
    """
    config = model.config
    rows = [_end_to_end(turns, config) for turns in dialogues]
    prompts = []
    for turns, prompt in zip(dialogues, voices, strict=True):
        if prompt and (last := max((speaker for speaker, _ in turns), default=0)) >= len(prompt):
            raise DataError(f"{len(prompt)} voices, but speaker {last} (counted from 0) speaks; give one for each")
        for voice in prompt:
            require_speech(voice, config)
        sounds = [voice.acoustic_codes[: config.num_codebooks] for voice in prompt]
        known = _end_to_end(list(enumerate(voice.semantic_codes for voice in prompt)), config)
        prompts.append(VoicePrompt(known, np.concatenate(sounds, axis=1)) if prompt else None)
    spoken = soundstorm_codes(model, rows, prompts, decoding, seed=seed)
    ends = [np.cumsum([len(codes) * config.frames_per_condition for _, codes in turns]) for turns in dialogues]
    return [np.split(frames, stops.astype(int), axis=1)[:-1] for frames, stops in zip(spoken, ends, strict=True)]


def _end_to_end(turns: Sequence[SpokenTurn], config: SoundStormConfig) -> Int[np.ndarray, " T"]:
    """Return the codes of all turns, marked with their speakers."""
    parts = [np.zeros(0, np.int64)]
    for speaker, codes in turns:
        require_codes(codes, config.num_conditions)
        parts.append(mark_speaker(np.asarray(codes, np.int64), speaker, config))
    return np.concatenate(parts)


def infill_codes(
    model: SoundStorm,
    speech: VoicePrompt,
    span: tuple[int, int],
    new_codes: np.ndarray,
    decoding: AcousticDecoding,
    *,
    seed: int,
) -> np.ndarray:
    """Return acoustic codes of `speech` with the semantic codes of a span replaced; all else keeps its sound, exactly.

    The new frames are made with both neighbours in view, so voice and room go through: of each at most the level that
    is being made, as frames between masked ones are seen in training. Beyond the window of the model as much of the
    neighbours is seen as fits, the same on both sides.

    Args:
        model: SoundStorm.
        speech: semantic codes [T] of the whole recording with acoustic codes [K, T * frames_per_condition].
        span: first semantic code to replace, and the first after it; an empty span inserts.
        new_codes: semantic codes that take their place, as many as it needs.
        decoding: how acoustic codes are drawn.
        seed: of the draws.

    Raises:
        DataError: the span is not inside the recording, or nothing would be new.
        ConfigError: the new codes alone fill the window.
        VocabularyError: a code is outside the semantic codebook, or the recording's are of another codec.
    """
    config, (start, stop) = model.config, span
    total, repeat = len(speech.semantic_codes), config.frames_per_condition
    if not 0 <= start <= stop <= total or len(new_codes) == 0:
        raise DataError(
            f"cannot put {len(new_codes)} codes in the place of {start}..{stop} of {total}; expected a span"
        )
    require_speech(speech, config)
    require_codes(new_codes, config.num_conditions)
    room = total if config.max_frames is None else config.max_frames // repeat - len(new_codes)
    if room < 2:
        raise ConfigError(f"{len(new_codes)} new codes fill the model's window; replace the span in parts")
    first, last = max(0, start - room // 2), min(total, stop + room // 2)
    left, right = (_part(speech, a, b, repeat) for a, b in ((first, start), (stop, last)))
    unknown = np.zeros((config.num_codebooks, len(new_codes) * repeat), np.int64)
    acoustic = np.concatenate((left.acoustic_codes, unknown, right.acoustic_codes), axis=1)
    window = _Window(
        condition=np.repeat(np.concatenate((left.semantic_codes, new_codes, right.semantic_codes)), repeat),
        codes=acoustic,
        unknown=_between(acoustic.shape[1], (start - first) * repeat, unknown.shape[1]),
    )
    (filled,) = _fill(model, [window], decoding, seed, decode=soundstorm_infill)
    before, after = (_part(speech, a, b, repeat).acoustic_codes for a, b in ((0, start), (stop, total)))
    return np.concatenate((before, filled[:, window.unknown], after), axis=1)


@dataclass(frozen=True, eq=False)
class _Window:
    """What one row of a batch is asked for."""

    condition: Int[np.ndarray, " T"]
    "Semantic codes at the codec's rate."
    codes: Int[np.ndarray, "K T"]
    "Any number where unknown."
    unknown: Bool[np.ndarray, " T"]
    "The frames to make."


class _Utterance:
    """Where one row stands: `spoken` of its semantic codes have sound, which is `frames`."""

    def __init__(self, codes: np.ndarray, voice: VoicePrompt | None, config: SoundStormConfig):
        self.codes, self.spoken, self.repeat = codes, 0, config.frames_per_condition
        nothing = np.zeros((config.num_codebooks, 0), np.int64)
        self.frames = nothing
        self.voice = voice or VoicePrompt(np.zeros(0, np.int64), nothing)
        self.num_codebooks = config.num_codebooks
        self.max_codes = len(codes) if config.max_frames is None else config.max_frames // self.repeat
        shares = (0.0, 0.0) if config.max_frames is None else (CONTEXT_SHARE, AHEAD_SHARE)
        self.context, self.ahead = (round(share * self.max_codes) for share in shares)
        if config.max_frames is None:
            self.max_codes += len(self.voice.semantic_codes)

    def next_window(self) -> _Window:
        """Return the window of the codes that come next, and count them as spoken."""
        begin = max(0, self.spoken - self.context)
        said = _part(VoicePrompt(self.codes, self.frames), begin, self.spoken, self.repeat)
        num_known = len(self.voice.semantic_codes) + len(said.semantic_codes)
        # At least as much as the context, however long the prompt: each window must get on.
        end = min(len(self.codes), self.spoken + max(self.max_codes - num_known, self.context, 1))
        new = self.codes[self.spoken : end]
        sound = np.zeros((self.num_codebooks, len(new) * self.repeat), np.int64)
        known = (self.voice.acoustic_codes[: self.num_codebooks], said.acoustic_codes)
        # Any window gets on, and the last one has nothing to leave.
        self.spoken = end if end == len(self.codes) else max(end - self.ahead, self.spoken + 1)
        return _Window(
            condition=np.repeat(np.concatenate((self.voice.semantic_codes, said.semantic_codes, new)), self.repeat),
            codes=np.concatenate((*known, sound), axis=1),
            unknown=_between((num_known + len(new)) * self.repeat, num_known * self.repeat, sound.shape[1]),
        )

    def add(self, codes: Int[np.ndarray, "K T"]) -> None:
        """Take the sound of the window's new codes, but for those that the next window says."""
        self.frames = np.concatenate((self.frames, codes), axis=1)[:, : self.spoken * self.repeat]


def _part(speech: VoicePrompt, start: int, stop: int, repeat: int) -> VoicePrompt:
    """Return the semantic codes start..stop with their frames."""
    return VoicePrompt(speech.semantic_codes[start:stop], speech.acoustic_codes[:, start * repeat : stop * repeat])


def _between(length: int, start: int, count: int) -> Bool[np.ndarray, " T"]:
    places = np.arange(length)
    return (places >= start) & (places < start + count)


def _fill(
    model: SoundStorm,
    windows: Sequence[_Window],
    decoding: AcousticDecoding,
    seed: int,
    decode: Callable[..., Int[Tensor, "B K T"]] = soundstorm_fill,
) -> list[np.ndarray]:
    """Return the codes [K, T] of each window, its known frames included."""
    results = [np.zeros((model.config.num_codebooks, 0), np.int64)] * len(windows)
    for batch in _batches(windows, decoding.max_batch_frames):
        filled = _fill_batch(model, [windows[i] for i in batch], decoding, seed, decode)
        for i, codes in zip(batch, filled, strict=True):
            results[i] = codes[:, : len(windows[i].condition)].cpu().numpy()
    return results


def _fill_batch(
    model: SoundStorm,
    windows: Sequence[_Window],
    decoding: AcousticDecoding,
    seed: int,
    decode: Callable[..., Int[Tensor, "B K T"]],
) -> Int[Tensor, "B K T"]:
    config, device = model.config, model.condition.weight.device
    B, T = len(windows), max(len(window.condition) for window in windows)
    lengths = torch.tensor([len(window.condition) for window in windows], device=device)
    condition, unknown = np.zeros((B, T), np.int64), np.zeros((B, T), bool)
    codes = np.zeros((B, config.num_codebooks, T), np.int64)
    for b, window in enumerate(windows):
        length = len(window.condition)
        condition[b, :length], unknown[b, :length], codes[b, :, :length] = (
            window.condition,
            window.unknown,
            window.codes,
        )
    inputs = [torch.from_numpy(array).to(device) for array in (condition, codes, unknown)]
    if config.at_once:
        return fill_at_once(model, *inputs, lengths=lengths)
    return decode(
        model,
        *inputs,
        lengths=lengths,
        iterations=default_iterations(config.num_codebooks, decoding.first_iterations),
        temperature=config.temperature if decoding.temperature is None else decoding.temperature,
        # The same noise for each row: none depends on its place in the batch.
        generator=[torch.Generator().manual_seed(seed) for _ in windows],
    )


def _batches(windows: Sequence[_Window], max_frames: int) -> Iterator[list[int]]:
    """Group windows of like length."""
    batch: list[int] = []
    for i in sorted(range(len(windows)), key=lambda i: len(windows[i].condition)):
        if batch and len(windows[i].condition) * (len(batch) + 1) > max_frames:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
