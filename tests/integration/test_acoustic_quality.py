"""The measures of windows, streaming, edits and dialogues see what they are for."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evidence.acoustic import quality, seams, windows
from benchmarks.evidence.acoustic.edits import differing, word_borders
from benchmarks.evidence.acoustic.summary import CER, Claim
from speechllm.audio import Audio
from speechllm.generation.acoustic import AcousticDecoding
from speechllm.generation.soundstorm_stage import _Utterance, soundstorm_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm
from speechllm.tokenizers.ctc_alignment import LetterSpan
from tests.support.tiny import NUM_CODES, tiny_acoustic

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE


def hum(pitch):
    return 0.1 * np.sin(2 * np.pi * pitch * TIME).astype(np.float32)


def score(rows):
    return rows[0][0]


def test_a_click_is_heard_at_its_place_alone():
    clicked = hum(200)
    clicked[RATE] += 0.5
    audio, clean = Audio(clicked, RATE), Audio(hum(200), RATE)
    assert score(seams.clicks(audio, [1.0])) > score(seams.clicks(clean, [1.0])) + 10
    assert score(seams.clicks(audio, [0.5])) == pytest.approx(score(seams.clicks(clean, [0.5])), abs=0.5)


def test_a_jump_is_a_difference_of_the_sides():
    joined = Audio(np.concatenate((hum(300)[:RATE], hum(3_000)[RATE:])), RATE)
    assert score(seams.jumps(joined, [1.0])) > 10
    assert score(seams.jumps(joined, [0.5])) == pytest.approx(0, abs=0.5)
    # Neither hears anything at a place without two sides.
    assert seams.jumps(joined, [0.0, 2.0, 5.0]) == [None, None, None]


@given(
    start=st.lists(st.integers(0, 3), max_size=5),
    end=st.lists(st.integers(0, 3), max_size=5),
    one=st.lists(st.integers(0, 3), max_size=4),
    other=st.lists(st.integers(0, 3), max_size=4),
)
def test_what_differs_is_a_span_that_can_be_put_in_the_others_place(start, end, one, other):
    a, b = ([*start, *middle, *end] for middle in (one, other))
    (first, last), (from_, until) = differing(a, b), differing(b, a)
    assert [*a[:first], *b[from_:until], *a[last:]] == b
    assert last - first <= len(one)


def test_words_meet_in_the_middle_of_the_blank_between_them():
    spans = [LetterSpan(letter, i / 10, (i + 1) / 10) for i, letter in enumerate("a cat")]
    assert word_borders(spans, 0.6) == pytest.approx([0.0, 0.15, 0.6])


@pytest.mark.parametrize("prompted", [True, False])
def test_seams_are_where_windows_meet(prompted, monkeypatch):
    _, model = tiny_acoustic()
    model = SoundStorm(dataclasses.replace(model.config, max_frames=200)).eval()
    voice = VoicePrompt(np.zeros(5, np.int64), np.zeros((2, 10), np.int64)) if prompted else None
    ends, add = [], _Utterance.add
    monkeypatch.setattr(_Utterance, "add", lambda self, codes: (add(self, codes), ends.append(self.frames.shape[1])))
    codes = np.arange(350) % NUM_CODES
    soundstorm_codes(model, [codes], [voice], AcousticDecoding(first_iterations=1), seed=0)
    places = windows.seams(model, len(codes), voice, code_rate=12.5)
    assert len(places) > 2
    assert ends[:-1] == [round(place * 25) for place in places]


def test_a_comparison_counts_the_seeds_that_are_clear_either_way():
    good, bad = [(1.0, 10.0), (0.0, 10.0)] * 3, [(9.0, 10.0), (10.0, 10.0)] * 3
    series = {"x/test/ours/cer": good, "x/test_speakers/ours/cer": good}
    series |= {"x/test/theirs/cer": bad, "x/test_speakers/theirs/cer": bad}
    pooled = quality.pool({0: series})
    assert len(pooled[0]["x/all/ours/cer"]) == 12
    sides = [(name, f"x/all/{name}/cer") for name in ("ours", "theirs")]
    claims = [Claim(finding="", measure=CER, better=better, worse=worse) for better, worse in (sides, reversed(sides))]
    _, _, first, second = quality.compare(claims, pooled).splitlines()
    assert "+90.0 | 1 better, 0 worse" in first
    assert "-90.0 | 0 better, 1 worse" in second
