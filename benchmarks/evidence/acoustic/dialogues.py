"""Dialogues of two speakers: all turns in one pass with marks, against turn by turn.

    measure_dialogues(seed=0, budget=budget, folders=folders)      # results/dialogues-0.json

    series "<split>/<system>/<what>"
    system   one pass            SoundStorm that was trained further on dialogues
             no marks            the same, both prompts in view, but every frame marked as the first speaker's
             turn by turn        the same, each turn alone behind the prompt of its speaker
             turn by turn, before     SoundStorm before that training
    what     own voice, other voice, nearer (1 where the own voice is nearer), cer: of each turn
             seconds             (CPU seconds, 1) of each dialogue, acoustic codes alone

A B A B: sentences of two speakers in turn, with a prompt of each. (SoundStorm, arXiv:2305.09636, dialogue synthesis; no
such numbers are published.)
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from benchmarks.evidence.acoustic.plan import PROMPT_SECONDS, SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.voices import COPY
from benchmarks.evidence.acoustic.world import LANGUAGE, Series, World, by_speaker, end_to_end, save_series
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.generation.soundstorm_stage import dialogue_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm

ONE_PASS, UNMARKED, BY_TURNS, BEFORE = "one pass", "no marks", "turn by turn", "turn by turn, before"
NUM_TURNS = 4
Prompts: TypeAlias = Sequence[VoicePrompt]


@dataclass(frozen=True, eq=False)
class DialogueItem:
    """Four turns of two speakers."""

    texts: tuple[str, ...]
    audios: tuple[Audio, ...]
    codes: tuple[np.ndarray, ...]
    voices: tuple[Audio, Audio]
    "Other sentences of both."


def measure_dialogues(seed: int, budget: Budget, folders: Folders) -> None:
    """Let every system speak the same dialogues."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    model = SoundStorm.from_pretrained(folders.dialogues(seed))
    series: dict[str, Series] = {}
    for split in SPLITS:
        items = dialogue_items(world, split)
        spoken: dict[str, list[Audio]] = {COPY: [world.copy(audio) for item in items for audio in item.audios]}
        for system in (ONE_PASS, UNMARKED, BY_TURNS, BEFORE):
            speaker = world.soundstorm if system == BEFORE else model
            made = [_speak(world, speaker, system, item) for item in items]
            spoken[system] = world.decode([codes for turns, _ in made for codes in turns])
            series[f"{split}/{system}/seconds"] = [(seconds, 1.0) for _, seconds in made]
        for system, audios in spoken.items():
            for what, rows in _scores(world, items, audios).items():
                series[f"{split}/{system}/{what}"] = rows
    save_series(folders.result("dialogues", seed), series)


def dialogue_items(world: World, split: str) -> list[DialogueItem]:
    """Return dialogues of neighbours in the list of speakers; other sentences for other seeds."""
    spoken = list(by_speaker(world.folders.corpus, split).values())
    found = []
    for number in range(world.budget.num_dialogues):
        pair = [spoken[(number + place) % len(spoken)] for place in range(2)]
        starts = [(world.seed * 2 + number // len(spoken) * 2) % len(sentences) for sentences in pair]
        turns = [pair[place % 2][(starts[place % 2] + place // 2) % len(pair[place % 2])] for place in range(NUM_TURNS)]
        voices = []
        for place, sentences in enumerate(pair):
            said = {text for text, _ in turns[place::2]}
            others = [audio for text, audio in sentences if text not in said] or [audio for _, audio in sentences]
            voices.append(end_to_end(others, PROMPT_SECONDS))
        audios = tuple(audio for _, audio in turns)
        codes = tuple(world.tokenizer.encode(audios))
        found.append(DialogueItem(tuple(text for text, _ in turns), audios, codes, (voices[0], voices[1])))
    return found


def _speak(world: World, model: SoundStorm, system: str, item: DialogueItem) -> tuple[list[np.ndarray], float]:
    """Return the acoustic codes of each turn, and the CPU seconds that they took."""
    prompts = [world.prompt(model, voice) for voice in item.voices]
    decoding, started = AcousticDecoding(), time.process_time()
    if system in (BY_TURNS, BEFORE):
        voices = [prompts[place % 2] for place in range(NUM_TURNS)]
        made = acoustic_codes(model, item.codes, voices, decoding, seed=world.seed)
    elif system == UNMARKED:
        both = VoicePrompt(
            np.concatenate([prompt.semantic_codes for prompt in prompts]),
            np.concatenate([prompt.acoustic_codes for prompt in prompts], axis=1),
        )
        (whole,) = acoustic_codes(model, [np.concatenate(item.codes)], [both], decoding, seed=world.seed)
        ends = np.cumsum([len(codes) * model.config.frames_per_condition for codes in item.codes])
        made = np.split(whole, ends[:-1], axis=1)
    else:
        turns = [(place % 2, codes) for place, codes in enumerate(item.codes)]
        (made,) = dialogue_codes(model, [turns], [prompts], decoding, seed=world.seed)
    return made, time.process_time() - started


def _scores(world: World, items: Sequence[DialogueItem], audios: Sequence[Audio]) -> dict[str, Series]:
    own = [item.voices[place % 2] for item in items for place in range(NUM_TURNS)]
    other = [item.voices[1 - place % 2] for item in items for place in range(NUM_TURNS)]
    to_own, to_other = world.ears.similarities(audios, own), world.ears.similarities(audios, other)
    texts = [text for item in items for text in item.texts]
    return {
        "own voice": to_own,
        "other voice": to_other,
        "nearer": [
            None if a is None or b is None else (float(a[0] > b[0]), 1.0) for a, b in zip(to_own, to_other, strict=True)
        ],
        "cer": world.ears.errors_of(texts, world.ears.judge.transcribe(list(audios), LANGUAGE)),
    }
