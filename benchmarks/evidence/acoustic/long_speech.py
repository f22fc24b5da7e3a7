"""Half a minute in one voice: does it drift away from the prompt, in AudioLM's windows and in SoundStorm's?

    measure_long(seed=0, budget=budget, folders=folders)        # results/long-0.json

    series "<split>/<system>/<segment>"      similarity of each 3 s of the output to the prompt; one row a speaker

What is said are sentences of one speaker, one after another. AudioLM goes by windows of `window_seconds`, the last 3 s
of each being the prompt of the next: the voice prompt itself is heard by the first window alone. SoundStorm goes by
windows of `max_frames`, each behind the voice prompt. (SoundStorm, arXiv:2305.09636, section 4.)
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.evidence.acoustic.plan import PROMPT_SECONDS, SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.voices import COPY
from benchmarks.evidence.acoustic.world import LANGUAGE, Series, World, by_speaker, end_to_end, save_series
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio

SEGMENT_SECONDS = 3.0


def measure_long(seed: int, budget: Budget, folders: Folders) -> None:
    """Let both models speak for long in the voice of some speakers."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    series: dict[str, Series] = {}
    for split in SPLITS:
        items = long_items(world, split)
        texts, voices = [item.text for item in items], [item.voice for item in items]
        spoken = {COPY: [world.copy(item.audio) for item in items]}
        for name, model in world.models.items():
            prompts = [world.prompt(model, voice) for voice in voices]
            spoken[name] = world.speak(model, [item.codes for item in items], prompts)
        for system, audios in spoken.items():
            for k in range(round(budget.long_seconds / SEGMENT_SECONDS)):
                segments = [audio.cropped(k * SEGMENT_SECONDS, (k + 1) * SEGMENT_SECONDS) for audio in audios]
                series[f"{split}/{system}/{k}"] = world.ears.similarities(segments, voices)
            heard = world.ears.judge.transcribe(audios, LANGUAGE)
            series[f"{split}/{system}/cer"] = world.ears.errors_of(texts, heard)
    save_series(folders.result("long", seed), series, segment_seconds=SEGMENT_SECONDS)


@dataclass(frozen=True, eq=False)
class LongItem:
    """Sentences of one speaker, one after another."""

    text: str
    audio: Audio
    codes: np.ndarray
    "Semantic codes, each sentence encoded alone: the encoder has never heard longer speech."
    voice: Audio
    "`PROMPT_SECONDS` of sentences that are not among them, where there are enough."


def long_items(world: World, split: str) -> list[LongItem]:
    """Return one item a speaker: for other seeds other speakers, where there are enough."""
    spoken = list(by_speaker(world.folders.corpus, split).values())
    num = min(world.budget.num_long, len(spoken))
    chosen = [spoken[(world.seed * num + i) % len(spoken)] for i in range(num)]
    return [_long_item(world, sentences) for sentences in chosen]


def _long_item(world: World, sentences: list[tuple[str, Audio]]) -> LongItem:
    voice = end_to_end([audio for _, audio in sentences], PROMPT_SECONDS)
    # The prompt is of the first sentences, what is said of the others; again from the first of them if too few.
    rest, said, length = sentences[len(sentences) // 4 :], [], 0.0
    while length < world.budget.long_seconds:
        said.append(rest[len(said) % len(rest)])
        length += said[-1][1].duration_seconds
    audios = [audio for _, audio in said]
    codes = np.concatenate(world.tokenizer.encode(audios))
    return LongItem(" ".join(text for text, _ in said), end_to_end(audios, length), codes, voice)
