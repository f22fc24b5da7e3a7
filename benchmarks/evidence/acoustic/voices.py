"""Content and voice: real semantic codes spoken with no prompt, and with three seconds of their speaker.

    measure_voices(seed=0, budget=budget, folders=folders)      # results/voices-0.json

    series "<split>/<system>/<what>"
    system   original, codec copy, coarse levels, another's codec copy, AudioLM, AudioLM prompted, SoundStorm, ...
    what     cer                against the text that the codes come from
             cer, other text    against the text of the next item: what a voice that says anything else gets
             own voice          similarity to three other seconds of the speaker of the codes (the prompt's, too)
             other voice        the same of the next item by another speaker

With no prompt, a voice that is as close to another speaker as to that of the codes is lost. (AudioLM, arXiv:2209.03143,
tables II and III; SoundStorm, arXiv:2305.09636, section 4.)
"""

from collections.abc import Sequence

from benchmarks.evidence.acoustic.plan import SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.world import Item, Series, World, save_series
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio

FIRST = "coarse levels"
ORIGINAL, COPY, COARSE, FLOOR = "original", "codec copy", f"codec copy, {FIRST}", "another speaker's codec copy"
PROMPTED, PLAIN = "prompted", "AudioLM's coarse stage as in the paper"


def measure_voices(seed: int, budget: Budget, folders: Folders) -> None:
    """Let both models speak the items of both splits."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    series: dict[str, Series] = {}
    for split in SPLITS:
        items = world.items(split, budget.num_items)
        others = next_speaker([item.speaker for item in items])
        for system, audios in systems(world, items, others).items():
            voices = [item.voice for item in items]
            series[f"{split}/{system}/own voice"] = world.ears.similarities(audios, voices)
            series[f"{split}/{system}/other voice"] = world.ears.similarities(audios, [voices[i] for i in others])
            if system == FLOOR:
                continue
            heard = world.ears.judge.transcribe(audios, "en")
            texts = [item.text for item in items]
            series[f"{split}/{system}/cer"] = world.ears.errors_of(texts, heard)
            series[f"{split}/{system}/cer, other text"] = world.ears.errors_of([*texts[1:], texts[0]], heard)
    save_series(folders.result("voices", seed), series, judge=world.ears.judge.name, ear=world.ears.embedder.name)


def systems(world: World, items: Sequence[Item], others: Sequence[int]) -> dict[str, list[Audio]]:
    """Return every version of the items."""
    audios = [item.audio for item in items]
    copies = [world.copy(audio) for audio in audios]
    found = {
        ORIGINAL: audios,
        COPY: copies,
        COARSE: [world.copy(audio, world.budget.num_coarse) for audio in audios],
        FLOOR: [copies[i] for i in others],
    }
    codes = world.tokenizer.encode(audios)
    plain = {} if world.plain is None else {PLAIN: world.plain}
    for name, model in (world.models | plain).items():
        prompts = [world.prompt(model, item.voice) for item in items]
        for system, voices in ((name, [None] * len(items)), (f"{name} {PROMPTED}", prompts)):
            spoken = world.acoustic(model, codes, voices)
            found[system] = world.decode(spoken)
            if model is world.audiolm:
                # Without what the fine stage adds.
                found[f"{system}, {FIRST}"] = world.decode([levels[: world.budget.num_coarse] for levels in spoken])
    return found


def next_speaker(speakers: Sequence[str]) -> list[int]:
    """Return for each item, of which the speaker is given, the next one, in a circle, that somebody else speaks."""
    found = []
    for i, speaker in enumerate(speakers):
        after = [*range(i + 1, len(speakers)), *range(i)]
        found.append(next((j for j in after if speakers[j] != speaker), i))
    return found
