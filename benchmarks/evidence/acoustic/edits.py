"""A word said anew in a recording, and a sentence said in another voice.

    measure_infilling(seed=0, budget=budget, folders=folders)       # results/infilling-0.json
    measure_conversion(seed=0, budget=budget, folders=folders)      # results/conversion-0.json

Infilling: two sentences that differ in a word or a few (`minimal_pairs.py`), both spoken by one voice and both by
another. Those words of the first sentence are replaced by the codes of the second's *in the other voice*: all that is
known of the own voice is what stands around the gap. When words are said the CTC encoder under the semantic codes knows
(`tokenizers/ctc_alignment.py`): its codes themselves differ far beyond the words, as each hears its surroundings.

    series "<system>/<what>"       system: infilled, said whole (all of it anew, the first sentence as the voice),
                                   cut and pasted (the acoustic codes of the second sentence's words in the gap),
                                   codec copy of the second sentence, codec copy of the first sentence
    what     cer (against the second sentence), jump and click at both ends of the span, surroundings (similarity of the
             span to the rest), kept (share of the codes outside the span that are the recording's, to the bit)

Conversion: sentences of the test splits in the voice of somebody else.

    series "<split>/<system>/<what>"    system: converted, own voice, codec copy; what: cer, source voice, target voice
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evidence.acoustic.minimal_pairs import SpokenPair, minimal_pairs, speak_pairs
from benchmarks.evidence.acoustic.plan import SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.seams import clicks, jumps
from benchmarks.evidence.acoustic.tokens import training_texts
from benchmarks.evidence.acoustic.voices import COPY, next_speaker
from benchmarks.evidence.acoustic.world import LANGUAGE, Series, World, save_series
from benchmarks.evidence.parts import use_one_thread
from speechllm.audio import Audio
from speechllm.errors import ConfigError
from speechllm.generation.acoustic import AcousticDecoding
from speechllm.generation.soundstorm_stage import infill_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.tokenizers.ctc_alignment import LetterSpan, align_letters
from speechllm.tokenizers.ctc_encoder import CTCFeatures

INFILLED, WHOLE, PASTED = "infilled", "said whole", "cut and pasted"
SECOND, FIRST = "codec copy of the second", "codec copy of the first"
CONVERTED, RESPOKEN = "converted", "own voice"
MIN_SPAN_SECONDS = 0.6
"Of the sound that is compared with its surroundings; a shorter span takes some of them with it."


@dataclass(frozen=True, eq=False)
class Edit:
    """One replaced span."""

    text: str
    audios: dict[str, Audio]
    spans: dict[str, tuple[float, float]]
    "Of each system, in seconds."
    kept: tuple[int, int]
    "Codes outside the span that are unchanged, of how many."


def measure_infilling(seed: int, budget: Budget, folders: Folders) -> None:
    """Replace the words in which two sentences differ."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    pairs = minimal_pairs(budget.num_edits, avoid=training_texts(world.folders), seed=seed)
    num_speakers = int(budget.quickstart_config().corpus.get("num_speakers", 12))
    spoken = speak_pairs(pairs, num_speakers=num_speakers, seed=seed)
    edits = [edit for pair in spoken if (edit := _edit(world, pair)) is not None]
    series: dict[str, Series] = {f"{INFILLED}/kept": [(float(a), float(b)) for a, b in (edit.kept for edit in edits)]}
    for system in (INFILLED, WHOLE, PASTED, SECOND, FIRST):
        audios = [edit.audios[system] for edit in edits]
        heard = world.ears.judge.transcribe(audios, LANGUAGE)
        series[f"{system}/cer"] = world.ears.errors_of([edit.text for edit in edits], heard)
        spans = [(audio, edit.spans[system]) for audio, edit in zip(audios, edits, strict=True)]
        series[f"{system}/jump"] = [row for audio, span in spans for row in jumps(audio, span)]
        series[f"{system}/click"] = [row for audio, span in spans for row in clicks(audio, span)]
        parts = [_apart(audio, span) for audio, span in spans]
        series[f"{system}/surroundings"] = world.ears.similarities([a for a, _ in parts], [b for _, b in parts])
    save_series(folders.result("infilling", seed), series, num_pairs=len(pairs))


def _edit(world: World, pair: SpokenPair) -> Edit | None:
    """Return a pair as an edit of its first sentence; None if the words to put in have no codes."""
    repeat, model, rate = world.soundstorm.config.frames_per_condition, world.soundstorm, world.tokenizer.frame_rate
    takes = [*pair.first, pair.other[1]]
    speech, second, other = (
        _encoded(world, audio, codes) for audio, codes in zip(takes, world.tokenizer.encode(takes), strict=True)
    )
    first_text, second_text = (text.split() for text in pair.texts)
    first_words, second_words = differing(first_text, second_text), differing(second_text, first_text)
    (start, stop), (own_start, own_stop), (from_, until) = (
        code_span(world, audio, text, words, len(spoken.semantic_codes))
        for audio, text, words, spoken in (
            (pair.first[0], pair.texts[0], first_words, speech),
            (pair.first[1], pair.texts[1], second_words, second),
            (pair.other[1], pair.texts[1], second_words, other),
        )
    )
    new = other.semantic_codes[from_:until]
    if len(new) == 0:
        return None
    made = infill_codes(model, speech, (start, stop), new, AcousticDecoding(), seed=world.seed)
    before, after = speech.acoustic_codes[:, : start * repeat], speech.acoustic_codes[:, stop * repeat :]
    outside = [made[:, : start * repeat], made[:, made.shape[1] - after.shape[1] :]]
    same = sum(int((a == b).sum()) for a, b in zip(outside, (before, after), strict=True))
    codes = np.concatenate((speech.semantic_codes[:start], new, speech.semantic_codes[stop:]))
    (whole,) = world.speak(model, [codes], [world.prompt(model, pair.first[0])])
    pasted = np.concatenate((before, second.acoustic_codes[:, own_start * repeat : own_stop * repeat], after), axis=1)
    audios = {
        INFILLED: world.decode([made])[0],
        WHOLE: whole,
        PASTED: world.decode([pasted])[0],
        SECOND: world.copy(pair.first[1]),
        FIRST: world.copy(pair.first[0]),
    }
    spans = {
        INFILLED: (start, start + len(new)),
        WHOLE: (start, start + len(new)),
        PASTED: (start, start + own_stop - own_start),
        SECOND: (own_start, own_stop),
        FIRST: (start, stop),
    }
    seconds = {system: (a / rate, b / rate) for system, (a, b) in spans.items()}
    return Edit(pair.texts[1], audios, seconds, (same, before.size + after.size))


def differing(one: Sequence[object], other: Sequence[object]) -> tuple[int, int]:
    """Return the span of `one` outside which both have the same, at the start and at the end."""
    shorter = min(len(one), len(other))
    start = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    same = next((i for i in range(shorter - start) if one[-1 - i] != other[-1 - i]), shorter - start)
    return start, len(one) - same


def code_span(world: World, audio: Audio, text: str, words: tuple[int, int], num_codes: int) -> tuple[int, int]:
    """Return the semantic codes in which words `words[0]` to `words[1]` (not included) of a text are said."""
    features = world.tokenizer.feature_extractor
    if not isinstance(features, CTCFeatures):
        raise ConfigError("words are found by the CTC encoder under the semantic codes; the tokenizer has none")
    borders = word_borders(align_letters(features, audio, text), audio.duration_seconds)
    start, stop = (min(num_codes, round(borders[word] * world.tokenizer.frame_rate)) for word in words)
    return start, stop


def word_borders(letters: Sequence[LetterSpan], duration_seconds: float) -> list[float]:
    """Return the seconds at which words begin, in the middle of the blanks before them, and the end of the last."""
    blanks = [(span.start_seconds + span.end_seconds) / 2 for span in letters if span.letter == " "]
    return [0.0, *blanks, duration_seconds]


def _encoded(world: World, audio: Audio, semantic: np.ndarray) -> VoicePrompt:
    """Return both kinds of codes of a recording, cut to what both cover."""
    repeat = world.soundstorm.config.frames_per_condition
    acoustic = world.acoustic_of(audio)
    T = min(len(semantic), acoustic.shape[1] // repeat)
    return VoicePrompt(semantic[:T], acoustic[:, : T * repeat])


def _apart(audio: Audio, span: tuple[float, float]) -> tuple[Audio, Audio]:
    """Return the span, lengthened if it is short, and all the rest."""
    more = max(0.0, MIN_SPAN_SECONDS - (span[1] - span[0])) / 2
    start, stop = max(0.0, span[0] - more), min(audio.duration_seconds, span[1] + more)
    rest = np.concatenate((audio.cropped(0.0, start).samples, audio.cropped(stop, audio.duration_seconds).samples))
    return audio.cropped(start, stop), Audio(rest, audio.sample_rate)


def measure_conversion(seed: int, budget: Budget, folders: Folders) -> None:
    """Say sentences in the voice of the next speaker."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    series: dict[str, Series] = {}
    for split in SPLITS:
        items = world.items(split, budget.num_converted)
        sources = [item.voice for item in items]
        targets = [items[i].voice for i in next_speaker([item.speaker for item in items])]
        codes = world.tokenizer.encode([item.audio for item in items])
        spoken = {COPY: [world.copy(item.audio) for item in items]}
        for system, voices in ((RESPOKEN, sources), (CONVERTED, targets)):
            prompts = [world.prompt(world.soundstorm, voice) for voice in voices]
            spoken[system] = world.speak(world.soundstorm, codes, prompts)
        for system, audios in spoken.items():
            series[f"{split}/{system}/cer"] = world.ears.errors([item.text for item in items], audios)
            series[f"{split}/{system}/source voice"] = world.ears.similarities(audios, sources)
            series[f"{split}/{system}/target voice"] = world.ears.similarities(audios, targets)
    save_series(folders.result("conversion", seed), series)
