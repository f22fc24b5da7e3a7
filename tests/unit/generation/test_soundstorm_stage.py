import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechllm.errors import ConfigError, DataError, VocabularyError
from speechllm.generation.acoustic import AcousticDecoding
from speechllm.generation.soundstorm import soundstorm_decode
from speechllm.generation.soundstorm_stage import dialogue_codes, infill_codes, soundstorm_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import FreeCodes, SoundStorm, SoundStormConfig
from speechllm.nn.conformer import ConformerConfig

K, N, SEMANTIC, REPEAT = 3, 8, 16, 2
DECODING = AcousticDecoding(first_iterations=4, temperature=1.0)


def make_model(**changes):
    torch.manual_seed(0)
    config = SoundStormConfig(
        num_conditions=SEMANTIC,
        num_codebooks=K,
        codebook_size=N,
        frames_per_condition=REPEAT,
        tied=False,
        trunk=ConformerConfig(width=16, num_layers=1, num_heads=2),
    )
    model = SoundStorm(dataclasses.replace(config, **changes)).eval()
    # Weights as they are drawn, and heads that are sure of themselves: what is said then depends on what is heard.
    assert isinstance(model.codes, FreeCodes)
    for head in model.codes.heads:
        torch.nn.init.normal_(head.weight)
    return model


def semantic(length, seed=0):
    return np.random.default_rng(seed).integers(SEMANTIC, size=length)


def sound(length, seed=0):
    return np.random.default_rng(seed).integers(N, size=(K, length * REPEAT))


def windows_seen(monkeypatch):
    """Return a list that fills with (condition, first pass's codes) of every window."""
    seen = []
    forward = SoundStorm.forward

    def spy(self, condition, codes, lengths, level):
        if int(level[0]) == 0 and bool((codes[:, 0] == self.mask_id).any()):
            seen.append((condition.clone(), codes.clone()))
        return forward(self, condition, codes, lengths, level)

    monkeypatch.setattr(SoundStorm, "forward", spy)
    return seen


@pytest.mark.parametrize("voiced", [True, False])
def test_speech_that_fits_a_window_is_the_decoders_own(voiced):
    model, codes = make_model(max_frames=40), semantic(10)
    voice = VoicePrompt(semantic(4, 1), sound(4, 1)) if voiced else None
    whole = np.concatenate((voice.semantic_codes, codes)) if voice else codes
    expected = soundstorm_decode(
        model,
        torch.from_numpy(np.repeat(whole, REPEAT))[None],
        prompt=torch.from_numpy(voice.acoustic_codes)[None] if voice else None,
        lengths=torch.tensor([len(whole) * REPEAT]),
        iterations=(4, 1, 1),
        temperature=1.0,
        generator=torch.Generator().manual_seed(3),
    )[0, :, 8 if voice else 0 :]
    (found,) = soundstorm_codes(model, [codes], [voice], DECODING, seed=3)
    assert np.array_equal(found, expected.numpy())
    unlimited = make_model(max_frames=None)
    assert np.array_equal(soundstorm_codes(unlimited, [codes], [voice], DECODING, seed=3)[0], found)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(0, 90), max_codes=st.integers(2, 24), prompt=st.sampled_from([0, 3, 30]))
def test_long_speech_has_every_frame_once_and_legal_codes(length, max_codes, prompt):
    model = make_model(max_frames=max_codes * REPEAT)
    voice = VoicePrompt(semantic(prompt, 1), sound(prompt, 1)) if prompt else None
    (found,) = soundstorm_codes(model, [semantic(length)], [voice], DECODING, seed=0)
    assert found.shape == (K, length * REPEAT)
    assert ((found >= 0) & (found < N)).all()


def test_a_window_opens_with_the_voice_and_the_end_of_the_last_one(monkeypatch):
    model, codes = make_model(max_frames=40), semantic(50)
    voice = VoicePrompt(semantic(4, 1), sound(4, 1))
    seen = windows_seen(monkeypatch)
    (found,) = soundstorm_codes(model, [codes], [voice], AcousticDecoding(first_iterations=1), seed=0)
    # 20 codes a window: 4 of the voice and 16 new, then 4 + 2 known and 14 new.
    starts = [0, 16, 30, 44]
    assert [window[0].shape[1] for window in seen] == [40, 40, 40, 24]
    for (condition, first_pass), start in zip(seen, starts, strict=True):
        context = min(start, 2)
        expected = np.concatenate((voice.semantic_codes, codes[start - context : start + 14 + 2 - context]))
        assert np.array_equal(condition[0].numpy(), np.repeat(expected, REPEAT)[: condition.shape[1]])
        known = np.concatenate((voice.acoustic_codes, found[:, (start - context) * REPEAT : start * REPEAT]), axis=1)
        assert np.array_equal(first_pass[0, :, : known.shape[1]].numpy(), known)
        assert (first_pass[0, :, known.shape[1] :] == N).all()


def test_what_a_window_says_last_is_made_with_the_next_codes_in_view():
    """Two codes of a hundred are left to the next window: those before them hear what comes next."""
    model, codes = make_model(max_frames=200), semantic(150)
    (found,) = soundstorm_codes(model, [codes], [None], DECODING, seed=0)
    (first,) = soundstorm_codes(model, [codes[:100]], [None], DECODING, seed=0)
    assert found.shape == (K, 150 * REPEAT)
    assert np.array_equal(found[:, : 98 * REPEAT], first[:, : 98 * REPEAT])
    other = codes.copy()
    other[98:100] = (other[98:100] + 1) % SEMANTIC
    (changed,) = soundstorm_codes(model, [other], [None], DECODING, seed=0)
    assert not np.array_equal(changed[:, : 98 * REPEAT], found[:, : 98 * REPEAT])


def test_long_rows_do_not_depend_on_their_batch():
    model = make_model(max_frames=40)
    rows = [semantic(n, seed=n) for n in (45, 3, 0, 21)]
    voices = [VoicePrompt(semantic(4, 1), sound(4, 1)), None, None, VoicePrompt(semantic(6, 2), sound(6, 2))]
    together = soundstorm_codes(model, rows, voices, DECODING, seed=5)
    for row, voice, codes in zip(rows, voices, together, strict=True):
        assert np.array_equal(soundstorm_codes(model, [row], [voice], DECODING, seed=5)[0], codes)
        small = dataclasses.replace(DECODING, max_batch_frames=1)
        assert np.array_equal(soundstorm_codes(model, [row], [voice], small, seed=5)[0], codes)


@pytest.mark.parametrize("span", [(5, 9), (0, 4), (16, 20), (7, 7), (0, 20)])
@pytest.mark.parametrize("count", [2, 4, 7])
def test_infilling_keeps_all_but_the_span(span, count):
    model, speech = make_model(), VoicePrompt(semantic(20), sound(20))
    new = semantic(count, seed=9)
    found = infill_codes(model, speech, span, new, DECODING, seed=0)
    start, stop = span[0] * REPEAT, span[0] * REPEAT + count * REPEAT
    assert found.shape == (K, (20 - (span[1] - span[0]) + count) * REPEAT)
    assert np.array_equal(found[:, :start], speech.acoustic_codes[:, :start])
    assert np.array_equal(found[:, stop:], speech.acoustic_codes[:, span[1] * REPEAT :])
    assert ((found >= 0) & (found < N)).all()


def test_infilling_sees_both_sides(monkeypatch):
    model, speech = make_model(max_frames=20), VoicePrompt(semantic(30), sound(30))
    seen = windows_seen(monkeypatch)
    new = semantic(2, seed=9)
    infill_codes(model, speech, (10, 13), new, AcousticDecoding(first_iterations=1), seed=0)
    (condition, codes), *rest = seen
    assert not rest
    # Ten codes a window: two new, four on each side.
    expected = np.concatenate((speech.semantic_codes[6:10], new, speech.semantic_codes[13:17]))
    assert np.array_equal(condition[0].numpy(), np.repeat(expected, REPEAT))
    assert np.array_equal(codes[0, 0, :8].numpy(), speech.acoustic_codes[0, 12:20])
    assert np.array_equal(codes[0, 0, 12:].numpy(), speech.acoustic_codes[0, 26:34])
    assert (codes[0, :, 8:12] == N).all()


def test_surroundings_of_a_span_are_seen_up_to_the_level_that_is_made(monkeypatch):
    """What training shows beside masked frames; behind a prompt alone are all levels known."""
    model, speech = make_model(), VoicePrompt(semantic(12), sound(12))
    seen, forward = [], SoundStorm.forward

    def spy(self, condition, codes, lengths, level):
        seen.append((int(level[0]), codes[0].clone()))
        return forward(self, condition, codes, lengths, level)

    monkeypatch.setattr(SoundStorm, "forward", spy)
    infill_codes(model, speech, (4, 7), semantic(3, seed=9), AcousticDecoding(first_iterations=1), seed=0)
    assert [level for level, _ in seen] == list(range(K))
    outside = np.r_[0 : 4 * REPEAT, 7 * REPEAT : 12 * REPEAT]
    for level, codes in seen:
        assert np.array_equal(codes[: level + 1, outside].numpy(), speech.acoustic_codes[: level + 1, outside])
        assert (codes[level + 1 :] == N).all()


ANN, BOB = VoicePrompt(semantic(4, 1), sound(4, 1)), VoicePrompt(semantic(5, 2), sound(5, 2))


def turns_of(*lengths, first=0):
    return [((first + i) % 2, semantic(length, seed=i)) for i, length in enumerate(lengths)]


def test_the_model_of_these_tests_is_no_constant():
    found = [soundstorm_codes(make_model(), [semantic(20)], [voice], DECODING, seed=0)[0] for voice in (None, ANN, BOB)]
    assert all(len(np.unique(levels)) > 1 for codes in found for levels in codes)
    assert not any(np.array_equal(a, b) for a, b in combinations(found, 2))


def test_a_dialogue_of_one_turn_is_plain_speech():
    for model in (make_model(num_speakers=2, max_frames=40), make_model(max_frames=40)):
        for voices in ([ANN], []):
            (turn,) = dialogue_codes(model, [[(0, semantic(30))]], [voices], DECODING, seed=3)[0]
            (plain,) = soundstorm_codes(model, [semantic(30)], voices or [None], DECODING, seed=3)
            assert np.array_equal(turn, plain)


def test_dialogues_do_not_depend_on_their_batch_and_have_every_turn_at_its_length():
    model = make_model(num_speakers=2, max_frames=60)
    dialogues = [turns_of(9, 14, 3), turns_of(2), turns_of(30, 25, first=1), []]
    voices = [[ANN, BOB], [ANN, BOB], [], []]
    together = dialogue_codes(model, dialogues, voices, DECODING, seed=5)
    for turns, prompts, made in zip(dialogues, voices, together, strict=True):
        assert [codes.shape for codes in made] == [(K, len(codes) * REPEAT) for _, codes in turns]
        (alone,) = dialogue_codes(model, [turns], [prompts], DECODING, seed=5)
        assert all(np.array_equal(a, b) for a, b in zip(made, alone, strict=True))


def test_every_window_of_a_dialogue_opens_with_all_voices_untouched(monkeypatch):
    model = make_model(num_speakers=2, max_frames=40)
    seen = windows_seen(monkeypatch)
    turns = turns_of(9, 14, 12)
    (made,) = dialogue_codes(model, [turns], [[ANN, BOB]], AcousticDecoding(first_iterations=1), seed=0)
    found = np.concatenate(made, axis=1)
    marked = np.concatenate([codes + SEMANTIC * speaker for speaker, codes in turns])
    # 20 codes a window: 9 of the voices, 11 new; then 9 + 2 known and 9 new, three times at most.
    starts = [0, 11, 20, 29]
    prompt = np.concatenate((ANN.acoustic_codes, BOB.acoustic_codes), axis=1)
    opening = np.concatenate((ANN.semantic_codes, BOB.semantic_codes + SEMANTIC))
    assert len(seen) == len(starts)
    for (condition, codes), start in zip(seen, starts, strict=True):
        context = min(start, 2)
        expected = np.concatenate((opening, marked[start - context : start + 11 - context]))
        assert np.array_equal(condition[0].numpy(), np.repeat(expected, REPEAT)[: condition.shape[1]])
        known = np.concatenate((prompt, found[:, (start - context) * REPEAT : start * REPEAT]), axis=1)
        assert np.array_equal(codes[0, :, : known.shape[1]].numpy(), known)
        assert (codes[0, :, known.shape[1] :] == N).all()


def test_marks_change_what_is_said():
    model = make_model(num_speakers=2)
    one, other = (
        dialogue_codes(model, [turns_of(9, 9, first=first)], [[ANN, BOB]], DECODING, seed=0)[0] for first in (0, 1)
    )
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_impossible_dialogues_are_refused():
    model = make_model(num_speakers=2)
    for turns, voices, error, message in (
        ([(2, semantic(3))], [], ConfigError, "speaker 2 of a dialogue.*marks for 2"),
        ([(-1, semantic(3))], [], ConfigError, "speaker -1"),
        ([(0, semantic(3))], [ANN, BOB, ANN], ConfigError, "marks for 2"),
        ([(0, semantic(3)), (1, semantic(3))], [ANN], DataError, "1 voices, but speaker 1"),
        ([(1, np.array([SEMANTIC]))], [], VocabularyError, "another tokenizer"),
    ):
        with pytest.raises(error, match=message):
            dialogue_codes(model, [turns], [voices], DECODING, seed=0)
    with pytest.raises(ConfigError, match="speak the turns one by one"):
        dialogue_codes(make_model(), [turns_of(3, 3)], [[ANN, BOB]], DECODING, seed=0)


def test_impossible_infilling_and_windows_are_refused():
    model, speech = make_model(max_frames=20), VoicePrompt(semantic(30), sound(30))
    for span, new in (((5, 3), semantic(2)), ((-1, 3), semantic(2)), ((5, 31), semantic(2)), ((5, 9), semantic(0))):
        with pytest.raises(DataError, match="expected a span"):
            infill_codes(model, speech, span, new, DECODING, seed=0)
    with pytest.raises(ConfigError, match="replace the span in parts"):
        infill_codes(model, speech, (5, 9), semantic(9), DECODING, seed=0)
    with pytest.raises(VocabularyError, match="another tokenizer"):
        infill_codes(model, speech, (5, 9), np.array([SEMANTIC]), DECODING, seed=0)
    with pytest.raises(ConfigError, match="two semantic codes at least"):
        make_model(max_frames=3)
