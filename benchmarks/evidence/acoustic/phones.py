"""ABX at letters in context: can the middle one of three letters be told from another between the same neighbours?

    measure_phones(seed=0, budget=budget, folders=folders)      # results/phones-0.json

    series "<within or across>, <speakers>/<tokens>"     mean error of each (left, letter, other letter, right), percent

    A   "s i t" by one speaker      X   "s i t" by the same one, or by another      B   "s e t" by the speaker of A
             of another sentence than A

The unit is a letter, not a phone, as there is no pronouncing dictionary here; most of the grammar's letters are said in
one way between given neighbours, and what is not makes all tokens worse. When letters are said, the CTC encoder under
the semantic codes knows (`tokenizers/ctc_alignment.py`); the same stretches are cut out of all tokens, each of which
has been made of the whole sentence. Errors are averaged over triples, then over cells. (AudioLM, arXiv:2209.03143,
table I; Libri-Light, arXiv:1912.07875, section 4.1, has triphones.)
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from benchmarks.evidence.acoustic.plan import Budget, Folders
from benchmarks.evidence.acoustic.tokens import ACROSS, WITHIN, Frames, vectors
from benchmarks.evidence.acoustic.world import LANGUAGE, Series, World, save_series, training_texts
from benchmarks.evidence.parts import use_one_thread
from data_prep.grammar import every_text
from data_prep.pico import HELD_OUT_SPEAKERS, training_speakers
from data_prep.pico_pool import speak_all
from speechllm.audio import Audio, load_audio
from speechllm.errors import ConfigError
from speechllm.metrics.abx import Triple, abx_errors
from speechllm.tokenizers.ctc_alignment import align_letters
from speechllm.tokenizers.ctc_encoder import CTCFeatures

KNOWN_SPEAKERS, UNSEEN_SPEAKERS = "known speakers", "unseen speakers"
Cell: TypeAlias = tuple[str, str, str, str]
"Left neighbour, letter, other letter, right neighbour."
Chosen: TypeAlias = dict[str, dict[Cell, list[tuple["Letter", "Letter", "Letter"]]]]


@dataclass(frozen=True)
class Letter:
    """Three letters that are said somewhere, of which the middle one counts."""

    letters: str
    sentence: int
    speaker: int
    start_seconds: float
    end_seconds: float


def measure_phones(seed: int, budget: Budget, folders: Folders) -> None:
    """Compare the tokens on sentences that are drawn anew for every seed."""
    use_one_thread()
    world, plan = World.load(seed, budget, folders), budget.language
    rng = random.Random(seed)
    texts = rng.sample(sorted({*every_text(LANGUAGE)} - training_texts(folders)), plan.num_phone_sentences)
    known = training_speakers(int(budget.quickstart_config().corpus.get("num_speakers", 12)))
    speakers = [*known, *HELD_OUT_SPEAKERS]
    places = list(itertools.product(range(len(texts)), range(len(speakers))))
    spoken = speak_all((speakers[s].request(texts[t], LANGUAGE) for t, s in places), num_workers=1)
    audios = {place: load_audio(flac) for place, flac in zip(places, spoken, strict=True)}
    features = world.tokenizer.feature_extractor
    if not isinstance(features, CTCFeatures):
        raise ConfigError("letters are found by the CTC encoder under the semantic codes; the tokenizer has none")
    letters = [letter for (t, s), audio in audios.items() for letter in letters_of(features, audio, texts[t], t, s)]
    chosen: Chosen = {}
    for group, is_known in ((KNOWN_SPEAKERS, True), (UNSEEN_SPEAKERS, False)):
        own = [letter for letter in letters if (letter.speaker < len(known)) == is_known]
        found = choose_triples(own, plan.triples_per_cell, rng)
        chosen |= {f"{name}, {group}": cells for name, cells in found.items()}
    series: dict[str, Series] = {}
    for kind, frames in vectors(world).items():
        series |= {f"{name}/{kind}": rows for name, rows in _errors(chosen, audios, frames).items()}
    num_triples = {name: sum(map(len, cells.values())) for name, cells in chosen.items()}
    save_series(folders.result("phones", seed), series, num_letters=len(letters), num_triples=num_triples)


def letters_of(features: CTCFeatures, audio: Audio, text: str, sentence: int, speaker: int) -> list[Letter]:
    """Return every letter of a spoken sentence that has two neighbours within its word."""
    spans = align_letters(features, audio, text)
    found = []
    for left, middle, right in zip(spans, spans[1:], spans[2:], strict=False):
        letters = left.letter + middle.letter + right.letter
        if letters.isalpha():
            found.append(Letter(letters, sentence, speaker, left.start_seconds, right.end_seconds))
    return found


def choose_triples(letters: Sequence[Letter], most: int, rng: random.Random) -> Chosen:
    """Return for each condition and cell up to `most` triples (A, B, X)."""
    by_letters: dict[str, list[Letter]] = {}
    for letter in letters:
        by_letters.setdefault(letter.letters, []).append(letter)
    found: Chosen = {WITHIN: {}, ACROSS: {}}
    for first, second in itertools.permutations(sorted(by_letters), 2):
        if first[0] + first[2] != second[0] + second[2]:
            continue
        cell = (first[0], first[1], second[1], first[2])
        # The same cells for both conditions, in which every speaker may come.
        pairs = [(a, b) for a in by_letters[first] for b in by_letters[second] if a.speaker == b.speaker]
        triples = {name: [] for name in found}
        for a, b in rng.sample(pairs, min(len(pairs), most)):
            others = [x for x in by_letters[first] if x.sentence != a.sentence]
            for name in found:
                possible = [x for x in others if (x.speaker == a.speaker) == (name == WITHIN)]
                if possible:
                    triples[name].append((a, b, rng.choice(possible)))
        if all(triples.values()):
            for name, cells in found.items():
                cells[cell] = triples[name]
    return found


def _errors(chosen: Chosen, audios: Mapping[tuple[int, int], Audio], frames: Frames) -> dict[str, Series]:
    made = {place: (frames(audio), audio.duration_seconds) for place, audio in audios.items()}

    def cut(letter: Letter) -> np.ndarray:
        rows, duration = made[letter.sentence, letter.speaker]
        return frames_between(rows, len(rows) / duration, letter.start_seconds, letter.end_seconds)

    series: dict[str, Series] = {}
    for name, cells in chosen.items():
        errors = (abx_errors([Triple(a=cut(a), b=cut(b), x=cut(x)) for a, b, x in cell]) for cell in cells.values())
        series[name] = [(float(np.mean(one)), 1.0) for one in errors]
    return series


def frames_between(rows: np.ndarray, frame_rate: float, start_seconds: float, end_seconds: float) -> np.ndarray:
    """Return the frames whose middle lies between two times; the nearest one where there is none."""
    first, last = (min(round(seconds * frame_rate), len(rows)) for seconds in (start_seconds, end_seconds))
    if first >= last:
        first = min(int((start_seconds + end_seconds) / 2 * frame_rate), len(rows) - 1)
    return rows[first : max(first + 1, last)]
