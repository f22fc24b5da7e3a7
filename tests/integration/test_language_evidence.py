"""What the evidence on AudioLM's language is measured with: pairs, the grammar as heard, letters in context."""

import functools
import random
from dataclasses import replace
from difflib import SequenceMatcher

import numpy as np
import pytest
import torch

from benchmarks.evidence.acoustic import continuations, phones, plausibility, semantic_stage, word_pairs
from benchmarks.evidence.acoustic.likelihoods import sentence_log_probs
from data_prep.grammar import every_text, sentences
from speechllm.metrics.normalise import make_normaliser
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.stage_layouts import CodeSizes
from speechllm.models.token_lm import DecoderConfig, StageLMConfig, TokenLM

DECODER = DecoderConfig(width=16, num_layers=1, num_heads=2, feed_forward=32)


def test_the_grammar_lists_all_it_can_say():
    texts = every_text("en")
    assert len(texts) == len(set(texts)) > 10_000
    assert {sentence.texts[0] for sentence in sentences(("en",), 300, seed=3)} <= set(texts)


def test_pairs_have_one_side_that_the_grammar_cannot_say():
    possible, avoided = set(every_text("en")), set(every_text("en")[::2])
    words = {word for text in possible for word in text.split()}
    pairs = word_pairs.word_pairs(12, avoid=avoided, seed=0)
    assert list(pairs) == list(word_pairs.KINDS)
    assert pairs == word_pairs.word_pairs(12, avoid=avoided, seed=0)
    rights = [right for one in pairs.values() for right, _ in one]
    assert len(rights) == len(set(rights)) == 48
    assert set(rights) <= possible - avoided
    for kind, one in pairs.items():
        for right, wrong in one:
            assert wrong not in possible
            if kind in ("swapped", "shuffled"):
                assert sorted(right.split()) == sorted(wrong.split())
            if kind == "nonword":
                (strange,) = set(wrong.split()) - words
                assert len(wrong.split()) == len(right.split())
                assert abs(len(wrong) - len(right)) <= 1
            if kind == "wrong kind":
                assert SequenceMatcher(None, right, wrong).ratio() > 0.4
    assert strange


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@pytest.fixture(scope="module")
def grammar():
    return plausibility.SpokenGrammar(["ab cd", "abc", "d"], make_normaliser("basic"))


def test_the_way_to_the_grammar_is_the_shortest(grammar):
    said = ["ab cd ", "abc ", "d "]
    stretches = {""}
    for _ in range(3):
        stretches |= {stretch + text for stretch in stretches for text in said}
    pieces = {one[i:j] for one in stretches for i in range(len(one)) for j in range(i, len(one) + 1)}
    rng = random.Random(0)
    for _ in range(60):
        heard = "".join(rng.choice("abcd x") for _ in range(rng.randint(1, 8)))
        text = make_normaliser("basic")(heard)
        assert grammar.errors(heard) == (min(edits(text, piece) for piece in pieces), len(text)), heard


def test_words_are_known_or_not(grammar):
    assert grammar.known_words("Abc! cd xx") == (2, 3)
    assert grammar.errors("") == (0, 0)
    assert continuations.new_runs([["a", "b", "c", "d"], ["b", "c", "d"], ["a"]]) == [(2, 2), (0, 1), (0, 0)]


def letter(letters, sentence, speaker):
    return phones.Letter(letters, sentence, speaker, 0.0, 0.1)


def test_triples_share_neighbours_and_differ_in_the_middle():
    rng = random.Random(0)
    letters = [letter(rng.choice(("sit", "set", "sat", "nod")), s, v) for s in range(8) for v in range(3) for _ in "ab"]
    chosen = phones.choose_triples(letters, 5, rng)
    within, across = (chosen[name] for name in (phones.WITHIN, phones.ACROSS))
    assert list(within) == list(across)
    # Three middles in one context, each against each of the others; "nod" has no partner.
    assert set(within) == {("s", a, b, "t") for a in "iea" for b in "iea" if a != b}
    for cells in (within, across):
        for (left, middle, other, right), triples in cells.items():
            assert 1 <= len(triples) <= 5
            for a, b, x in triples:
                assert (a.letters, b.letters, x.letters) == (left + middle + right, left + other + right, a.letters)
                assert a.speaker == b.speaker
                assert x.sentence != a.sentence
                assert (x.speaker == a.speaker) == (cells is within)


def test_a_stretch_is_never_empty_and_keeps_to_its_borders():
    rows = np.arange(10)[:, None]
    cut = functools.partial(phones.frames_between, rows, 10.0)
    assert cut(0.2, 0.5)[:, 0].tolist() == [2, 3, 4]
    assert cut(0.24, 0.46)[:, 0].tolist() == [2, 3, 4]
    assert cut(0.52, 0.54)[:, 0].tolist() == [5]
    assert cut(0.98, 1.2)[:, 0].tolist() == [9]
    assert cut(1.1, 1.2)[:, 0].tolist() == [9]


def test_a_semantic_stage_completes_an_audiolm_and_scores_what_it_writes():
    torch.manual_seed(0)
    sizes = CodeSizes(num_conditions=9, codebook_size=4, num_codebooks=2, num_coarse=2)
    config = AudioLMConfig(
        sizes=sizes, frame_rate=25.0, frames_per_condition=2, coarse=StageLMConfig(decoder=DECODER, window_seconds=2.0)
    )
    model = AudioLM(config)
    stage = StageLMConfig(decoder=DECODER, window_seconds=3.0, dedup=True, tokens_per_second=12.0)
    lm = TokenLM(stage, semantic_stage.semantic_layout(9)).eval()
    whole = semantic_stage.with_semantic(model, lm)
    assert whole.coarse is model.coarse
    assert whole.config == replace(config, semantic=replace(stage, dedup=False, tokens_per_second=None)), (
        "the coarse stage reads durations"
    )
    codes = [np.array([3, 1, 4]), np.array([1, 5, 0, 2, 6]), np.array([8])]
    assert whole.semantic is not None
    for scorer in (lm, whole.semantic):
        together = sentence_log_probs(scorer, codes)
        assert [len(row) for row in together] == [3, 5, 1]
        for row, one in zip(together, codes, strict=True):
            (alone,) = sentence_log_probs(scorer, [one])
            assert row == pytest.approx(alone, abs=1e-5)
            assert (row < 0).all()
        # The first code's probability does not depend on what follows.
        assert sentence_log_probs(scorer, [np.array([3, 7])])[0][0] == pytest.approx(together[0][0], abs=1e-5)
