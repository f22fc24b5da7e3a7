"""The whole AudioLM: how 3 s of speech go on, and speech from nothing.

    measure_continuations(seed=0, budget=budget, folders=folders)      # results/continuations-0.json

    series "<split>/<system>/<what>", "<NOTHING>/<system>/<what>"

    system          what is spoken behind the prompt, by the coarse and fine stages but for the first two
    recording       what the speaker said next
    codec copy      the same, of the codec's codes
    real codes      the same, of its semantic codes
    AudioLM         what the semantic stage writes behind the prompt's codes
    random codes    as many codes, drawn by how often each occurs

    what            known words     share of the words that are heard that the grammar has
                    way to grammar  edits from what is heard to the nearest that the grammar could say, of its letters
                    own voice       similarity to the prompt
                    other voice     similarity to the prompt of another speaker
                    seconds         how long it is
                    new runs        of three words: share of those that none of the texts before it has

Only what comes after the prompt is heard and measured. From nothing there is no prompt and so no voice.
The notes have the texts that were heard. (AudioLM, arXiv:2209.03143, sections 3.4 and 4.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evidence.acoustic.likelihoods import code_frequencies
from benchmarks.evidence.acoustic.plan import PROMPT_SECONDS, SPLITS, Budget, Folders
from benchmarks.evidence.acoustic.plausibility import SpokenGrammar
from benchmarks.evidence.acoustic.semantic_stage import load_semantic, with_semantic
from benchmarks.evidence.acoustic.voices import next_speaker
from benchmarks.evidence.acoustic.world import LANGUAGE, Series, World, by_speaker, end_to_end, save_series
from benchmarks.evidence.parts import use_one_thread
from data_prep.grammar import every_text
from speechllm.audio import Audio
from speechllm.generation.audiolm import GeneratedSpeech, continue_speech, generate_unconditional
from speechllm.generation.voice import VoicePrompt, encode_start
from speechllm.metrics.normalise import make_normaliser
from speechllm.models.audiolm import AudioLM

RECORDING, COPY, REAL, OURS, RANDOM = "recording", "codec copy", "real codes", "AudioLM", "random codes"
NOTHING = "nothing"
KNOWN, WAY, OWN, OTHER, SECONDS, NEW = (
    "known words", "way to grammar", "own voice", "other voice", "seconds", "new runs",
)  # fmt: skip
RUN = 3
"Words of a run."


@dataclass(frozen=True, eq=False)
class Start:
    """A prompt, and what its speaker said next."""

    speaker: str
    voice: Audio
    prompt: VoicePrompt
    rest: Audio


def measure_continuations(seed: int, budget: Budget, folders: Folders) -> None:
    """Continue prompts of both splits, and speak from nothing."""
    use_one_thread()
    world = World.load(seed, budget, folders)
    whole = with_semantic(world.audiolm, load_semantic(seed, folders, num_codes=world.tokenizer.codebook_size))
    grammar = SpokenGrammar(every_text(LANGUAGE), make_normaliser("spoken", LANGUAGE))
    shares = np.exp(code_frequencies(folders, budget, world.tokenizer.codebook_size, seed))
    series: dict[str, Series] = {}
    notes: dict[str, list[str | None]] = {}
    for split in SPLITS:
        starts = speech_starts(world, split)
        others = next_speaker([start.speaker for start in starts])
        for system, audios in continued(world, whole, starts, shares).items():
            name = f"{split}/{system}"
            notes[name] = _hear(world, grammar, audios, name, series)
            for what, places in ((OWN, range(len(starts))), (OTHER, others)):
                series[f"{name}/{what}"] = world.ears.similarities(audios, [starts[i].voice for i in places])
    for system, audios in from_nothing(world, whole, shares).items():
        notes[f"{NOTHING}/{system}"] = _hear(world, grammar, audios, f"{NOTHING}/{system}", series)
    save_series(folders.result("continuations", seed), series, heard=notes)


def speech_starts(world: World, split: str) -> list[Start]:
    """Return prompts of the speakers in turns, each with what comes next; other seeds take other sentences."""
    plan, spoken = world.budget.language, by_speaker(world.folders.corpus, split)
    rng, speakers = np.random.default_rng((world.seed, len(split))), sorted(spoken)
    found = []
    for i in range(plan.num_continuations):
        speaker = speakers[i % len(speakers)]
        audios = [audio for _, audio in spoken[speaker]]
        order = rng.permutation(len(audios))
        joined = end_to_end([audios[k] for k in order], PROMPT_SECONDS + plan.continued_seconds)
        prompt = encode_start(joined, world.tokenizer, world.codec, world.audiolm, seconds=PROMPT_SECONDS)
        rest = joined.cropped(PROMPT_SECONDS, PROMPT_SECONDS + plan.continued_seconds)
        found.append(Start(speaker, joined.cropped(0.0, PROMPT_SECONDS), prompt, rest))
    return found


def continued(world: World, whole: AudioLM, starts: Sequence[Start], shares: np.ndarray) -> dict[str, list[Audio]]:
    """Return what each system lets come after the prompts."""
    prompts = [start.prompt for start in starts]
    drawn = continue_speech(whole, prompts, seconds=world.budget.language.continued_seconds, seed=world.seed)
    new = [one.semantic_codes[len(start.prompt.semantic_codes) :] for one, start in zip(drawn, starts, strict=True)]
    return {
        RECORDING: [start.rest for start in starts],
        COPY: [world.copy(start.rest) for start in starts],
        REAL: world.speak(whole, world.tokenizer.encode([start.rest for start in starts]), prompts),
        OURS: world.decode(_added(drawn)),
        RANDOM: world.speak(whole, _random_codes(new, shares, world.seed), prompts),
    }


def from_nothing(world: World, whole: AudioLM, shares: np.ndarray) -> dict[str, list[Audio]]:
    """Return speech without any prompt, real, of the model, and of random codes."""
    plan = world.budget.language
    drawn = generate_unconditional(whole, count=plan.num_unconditional, seconds=plan.continued_seconds, seed=world.seed)
    spoken = list(by_speaker(world.folders.corpus, SPLITS[0]).values())
    rng = np.random.default_rng((world.seed, 1))
    real = []
    for i in range(plan.num_unconditional):
        audios = [audio for _, audio in spoken[i % len(spoken)]]
        real.append(end_to_end([audios[k] for k in rng.permutation(len(audios))], plan.continued_seconds))
    nobody: list[VoicePrompt | None] = [None] * len(drawn)
    return {
        REAL: world.speak(whole, world.tokenizer.encode(real), nobody),
        OURS: world.decode(_added(drawn)),
        RANDOM: world.speak(whole, _random_codes([one.semantic_codes for one in drawn], shares, world.seed), nobody),
    }


def _added(drawn: Sequence[GeneratedSpeech]) -> list[np.ndarray]:
    return [one.acoustic_codes[:, one.num_prompt_frames :] for one in drawn]


def _random_codes(like: Sequence[np.ndarray], shares: np.ndarray, seed: int) -> list[np.ndarray]:
    """Return as many codes as each row has, drawn one by one."""
    rng = np.random.default_rng((seed, 2))
    return [rng.choice(len(shares), size=len(codes), p=shares / shares.sum()) for codes in like]


def _hear(
    world: World, grammar: SpokenGrammar, audios: Sequence[Audio], name: str, series: dict[str, Series]
) -> list[str | None]:
    """Add what is heard to the series and return it."""
    heard = world.ears.judge.transcribe(audios, LANGUAGE)
    series[f"{name}/{KNOWN}"] = [None if text is None else grammar.known_words(text) for text in heard]
    series[f"{name}/{WAY}"] = [None if text is None else grammar.errors(text) for text in heard]
    series[f"{name}/{SECONDS}"] = [(audio.duration_seconds, 1.0) for audio in audios]
    series[f"{name}/{NEW}"] = new_runs([grammar.words_of(text or "") for text in heard])
    return heard


def new_runs(texts: Sequence[Sequence[str]]) -> Series:
    """Return for each text how many of its runs of words no text before it has, and how many runs it has."""
    known: set[tuple[str, ...]] = set()
    rows: Series = []
    for words in texts:
        runs = {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
        rows.append((float(len(runs - known)), float(len(runs))))
        known |= runs
    return rows
