"""Half a minute in one voice: does it drift away from the prompt, in AudioLM's windows and in SoundStorm's?

    measure_long(seed=0, budget=budget, folders=folders)        # results/long-0.json

    series "<split>/<system>/<segment>"      similarity of each 3 s of the output to the prompt; one row a speaker

What is said are sentences of one speaker, one after another. AudioLM goes by windows of `window_seconds`, the last 3 s
of each being the prompt of the next: the voice prompt itself is heard by the first window alone. SoundStorm goes by
windows of `max_frames`, each behind the voice prompt. (SoundStorm, arXiv:2305.09636, section 4, figure 3.)
"""

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
        texts, speech, voices = long_items(world, split)
        codes = world.tokenizer.encode(speech)
        spoken = {COPY: [world.copy(audio) for audio in speech]}
        for name, model in world.models.items():
            spoken[name] = world.speak(model, codes, [world.prompt(model, voice) for voice in voices])
        for system, audios in spoken.items():
            for k in range(round(budget.long_seconds / SEGMENT_SECONDS)):
                segments = [audio.cropped(k * SEGMENT_SECONDS, (k + 1) * SEGMENT_SECONDS) for audio in audios]
                series[f"{split}/{system}/{k}"] = world.ears.similarities(segments, voices)
            heard = world.ears.judge.transcribe(audios, LANGUAGE)
            series[f"{split}/{system}/cer"] = world.ears.errors_of(texts, heard)
    save_series(folders.result("long", seed), series, segment_seconds=SEGMENT_SECONDS)


def long_items(world: World, split: str) -> tuple[list[str], list[Audio], list[Audio]]:
    """Return text, speech and voice prompt of each speaker: other seeds, other speakers where there are enough."""
    spoken = list(by_speaker(world.folders.corpus, split).values())
    num = world.budget.num_long
    chosen = [spoken[(world.seed * num + i) % len(spoken)] for i in range(min(num, len(spoken)))]
    texts, speech, voices = [], [], []
    for sentences in chosen:
        voice = end_to_end([audio for _, audio in sentences], PROMPT_SECONDS)
        said, length, rest = [], 0.0, sentences[len(sentences) // 4 :]
        # The prompt is of the first sentences, what is said of the others; again from the first of them if too few.
        while length < world.budget.long_seconds:
            text, audio = rest[len(said) % len(rest)]
            said.append((text, audio))
            length += audio.duration_seconds
        texts.append(" ".join(text for text, _ in said))
        speech.append(end_to_end([audio for _, audio in said], length))
        voices.append(voice)
    return texts, speech, voices
