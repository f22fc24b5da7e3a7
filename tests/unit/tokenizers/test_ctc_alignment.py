"""Forced alignment: the best of all paths that read as the text, found by trying them all."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechllm.audio import Audio
from speechllm.errors import DataError
from speechllm.nn.conformer import ConformerConfig
from speechllm.tokenizers.ctc_alignment import align_letters, best_path
from speechllm.tokenizers.ctc_encoder import BLANK, CTCEncoder, CTCEncoderConfig, CTCFeatures, CTCFeaturesConfig


def read(symbols):
    """Return what a path of symbols reads as: repeats merged, blanks dropped."""
    return [symbol for symbol, _ in itertools.groupby(symbols) if symbol != BLANK]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    targets=st.lists(st.integers(1, 2), min_size=1, max_size=3),
    spare=st.integers(0, 3),
)
def test_no_path_through_the_text_is_likelier(seed, targets, spare):
    needed = len(targets) + sum(a == b for a, b in itertools.pairwise(targets))
    num_emissions = needed + spare
    log_probs = torch.randn(num_emissions, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    path = best_path(log_probs, targets)
    written = [BLANK if place < 0 else targets[place] for place in path]
    assert read(written) == targets
    assert [place for place, _ in itertools.groupby(path) if place >= 0] == list(range(len(targets)))

    def score(symbols):
        return sum(float(log_probs[e, symbol]) for e, symbol in enumerate(symbols))

    possible = [one for one in itertools.product(range(3), repeat=num_emissions) if read(one) == targets]
    assert score(written) == pytest.approx(max(map(score, possible)), abs=1e-5)


def test_a_repeated_letter_has_a_blank_between():
    # The likeliest emission is the letter everywhere: once, a blank has to be paid for.
    log_probs = torch.tensor([[0.1, 0.9], [0.3, 0.7], [0.2, 0.8]]).log()
    assert best_path(log_probs, [1, 1]).tolist() == [0, -1, 1]
    assert best_path(log_probs, [1]).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("targets", "needed"), [([1, 1], 3), ([], 1), ([1, 2, 1], 3)])
def test_texts_that_are_too_long_are_refused(targets, needed):
    with pytest.raises(DataError, match=f"needs {needed} emissions or more, the audio has 2"):
        best_path(torch.zeros(2, 3), targets)


@pytest.fixture(scope="module")
def features():
    torch.manual_seed(0)
    trunk = ConformerConfig(width=16, num_layers=1, num_heads=2)
    config = CTCEncoderConfig(symbols=" abc", num_mels=20, stem_width=8, trunk=trunk)
    return CTCFeatures(CTCEncoder(config), CTCFeaturesConfig(chunk_seconds=1.0))


def test_spans_follow_one_another_within_the_audio(features):
    audio = Audio(0.1 * np.random.default_rng(0).standard_normal(24_000).astype(np.float32), 16_000)
    # "d" is no symbol of the encoder.
    spans = align_letters(features, audio, "ab dca a")
    assert "".join(span.letter for span in spans) == "ab ca a"
    for before, after in itertools.pairwise(spans):
        assert before.start_seconds < before.end_seconds == after.start_seconds
    assert spans[0].start_seconds >= 0
    assert spans[-1].end_seconds <= 19 * 0.08
    # 19 frames of 80 ms, with three emissions each, over two chunks of a second.
    assert features.log_probs(audio).shape == (57, 5)
    with pytest.raises(DataError, match="check that text and audio belong together"):
        align_letters(features, audio, "ab" * 40)
