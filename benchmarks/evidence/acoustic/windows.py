"""Speech longer than the model's window, made window by window, against one pass over all of it.

measure_windows(seed=0, budget=budget, folders=folders)      # results/windows-0.json

series "<split>/<voice>/<system>/<what>"
voice    prompted, or none: then only the end of one window tells the next how it sounds
system   windows, one pass, codec copy
what     cer, own voice (of each 3 s), and at the seams of the windows: jump, click, both sides (their similarity)
"""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.evidence.acoustic.long_speech import LongItem, long_items
from benchmarks.evidence.acoustic.plan import SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.seams import clicks, jumps
from benchmarks.evidence.acoustic.voices import COPY, PROMPTED
from benchmarks.evidence.acoustic.world import LANGUAGE, Series, World, save_series
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio
from speechllm.generation.soundstorm_stage import AHEAD_SHARE, CONTEXT_SHARE
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm

WINDOWS, ONE_PASS, ALONE = "windows", "one pass", "no prompt"
SIDE_SECONDS = 1.5
"Of the sound on each side of a seam whose voices are compared."


def measure_windows(seed: int, budget: Budget, folders: Folders) -> None:
    """Speak long items both ways, with a prompt and without."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    series: dict[str, Series] = {}
    for split in SPLITS:
        items = long_items(world, split)[: budget.num_windowed]
        copies = [world.copy(item.audio) for item in items]
        for voice in (PROMPTED, ALONE):
            prompts = [world.prompt(world.soundstorm, item.voice) if voice == PROMPTED else None for item in items]
            spoken = {
                WINDOWS: _speak(world, world.soundstorm, items, prompts),
                ONE_PASS: _speak(world, without_windows(world.soundstorm), items, prompts),
                COPY: copies,
            }
            places = [
                seams(world.soundstorm, len(item.codes), prompt, world.tokenizer.frame_rate)
                for item, prompt in zip(items, prompts, strict=True)
            ]
            for system, audios in spoken.items():
                for what, rows in _scores(world, items, audios, places).items():
                    series[f"{split}/{voice}/{system}/{what}"] = rows
    save_series(folders.result("windows", seed), series)


def without_windows(model: SoundStorm) -> SoundStorm:
    """Return a copy of the model, sharing its weights, that makes all speech in one window."""
    twin = SoundStorm(replace(model.config, max_frames=None)).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def seams(model: SoundStorm, num_codes: int, prompt: VoicePrompt | None, code_rate: float) -> list[float]:
    """Return the seconds at which windows meet (see `generation/soundstorm_stage.py`)."""
    assert model.config.max_frames is not None, "the evidence's models have windows"
    size = model.config.max_frames // model.config.frames_per_condition
    context, ahead = round(CONTEXT_SHARE * size), round(AHEAD_SHARE * size)
    room = size - (len(prompt.semantic_codes) if prompt else 0)
    places, reached = [], room
    while reached < num_codes:
        places.append((reached - ahead) / code_rate)
        reached += room - context - ahead
    return places


def _speak(
    world: World, model: SoundStorm, items: Sequence[LongItem], prompts: Sequence[VoicePrompt | None]
) -> list[Audio]:
    return world.speak(model, [item.codes for item in items], prompts)


def _scores(
    world: World, items: Sequence[LongItem], audios: Sequence[Audio], places: Sequence[Sequence[float]]
) -> dict[str, Series]:
    pieces, voices, sides = [], [], []
    for item, audio, seconds in zip(items, audios, places, strict=True):
        starts = range(0, round(audio.duration_seconds) - 2, 3)
        pieces += [audio.cropped(float(start), start + 3.0) for start in starts]
        voices += [item.voice] * len(starts)
        sides += [(audio.cropped(at - SIDE_SECONDS, at), audio.cropped(at, at + SIDE_SECONDS)) for at in seconds]
    pairs = list(zip(audios, places, strict=True))
    return {
        "cer": world.ears.errors_of([item.text for item in items], world.ears.judge.transcribe(list(audios), LANGUAGE)),
        "own voice": world.ears.similarities(pieces, voices),
        "both sides": world.ears.similarities([before for before, _ in sides], [after for _, after in sides]),
        "jump": [row for audio, seconds in pairs for row in jumps(audio, seconds)],
        "click": [row for audio, seconds in pairs for row in clicks(audio, seconds)],
    }
