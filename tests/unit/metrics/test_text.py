from importlib.metadata import version

import jiwer
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from speechllm.errors import DataError
from speechllm.metrics import (
    BLEU,
    CER,
    CHRF,
    WER,
    BootstrapConfig,
    asr_bleu,
    bleu_for,
    error_rates_for,
    make_normaliser,
)

METRICS = [WER, CER, BLEU, CHRF]
FAST = BootstrapConfig(num_resamples=20)
WORDS = st.sampled_from(["the", "a", "cat", "dog", "sat", "on", "mat", "red", "old", "run"])
sentences = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
corpora = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@given(
    corpus=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=8).map(" ".join), min_size=1, max_size=5)
)
@settings(max_examples=25, deadline=None)
def test_a_text_against_itself_is_perfect(metric, corpus):
    score = metric.score(corpus, corpus, bootstrap=FAST)
    assert score.value == pytest.approx(100 if metric.higher_is_better else 0)
    assert (score.num_scored, score.num_failed) == (len(corpus), 0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@given(corpus=corpora)
@settings(max_examples=25, deadline=None)
def test_order_of_utterances_does_not_matter(metric, corpus):
    references, hypotheses = zip(*corpus, strict=True)
    forward = metric.score(references, hypotheses, bootstrap=FAST).value
    assert metric.score(references[::-1], hypotheses[::-1], bootstrap=FAST).value == pytest.approx(forward)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@given(corpus=corpora)
@settings(max_examples=50, deadline=None)
def test_sums_of_statistics_give_the_corpus_value(metric, corpus):
    sums = sum(metric.statistics(reference, hypothesis) for reference, hypothesis in corpus)
    assert metric.from_sums(sums) == pytest.approx(metric.corpus(corpus))


@given(corpus=corpora)
@settings(max_examples=25, deadline=None)
def test_wer_of_two_halves_is_their_mean_weighted_by_words(corpus):
    references, hypotheses = [list(side) for side in zip(*corpus, strict=True)]
    words = [len(r.split()) for r in references]
    parts = [WER.score([r], [h]).value for r, h in zip(references, hypotheses, strict=True)]
    expected = sum(p * n for p, n in zip(parts, words, strict=True)) / sum(words)
    assert WER.score(references, hypotheses, bootstrap=FAST).value == pytest.approx(expected)


def test_by_hand():
    # 1 substitution + 1 deletion in 6 + 2 words
    assert WER.score(["the cat sat on the mat", "good morning"], ["the cat sat in the mat", "good"]).value == 25
    assert CER.score(["abcd"], ["abxd"]).value == 25
    # BLEU by its definition: p1 = 5/6, p2 = 3/5, p3 = 1/4, p4 smoothed = (1/2)/3; brevity penalty 1
    expected = 100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25
    assert BLEU.score(["the cat sat on the mat"], ["the cat lay on the mat"]).value == pytest.approx(expected)


@pytest.mark.golden
def test_the_libraries_say_the_same():
    references, hypotheses = ["a b c d e", "f g h i j"], ["a b x d e", "f g h i"]
    assert WER.score(references, hypotheses).value == pytest.approx(100 * jiwer.wer(references, hypotheses))
    assert CER.score(references, hypotheses).value == pytest.approx(100 * jiwer.cer(references, hypotheses))
    assert BLEU.score(references, hypotheses).value == sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert CHRF.score(references, hypotheses).value == sacrebleu.corpus_chrf(hypotheses, [references]).score


def test_missing_outputs_are_counted_and_empty_outputs_are_scored():
    score = WER.score(["a b", "c d", "!?", "e f"], ["a b", None, "x", ""])
    assert (score.value, score.num_scored, score.num_failed) == (50, 2, 2)
    assert score.reason == "1 without an output, 1 with an empty reference"


def test_nothing_to_score_gives_no_number():
    score = BLEU.score(["a"], [None])
    assert (score.value, score.num_failed, score.reason) == (None, 1, "1 without an output")
    assert WER.score([], []).reason == "there were no items"


def test_interval_holds_the_value_and_is_seeded():
    references = [f"the cat {i} sat on a mat" for i in range(30)]
    hypotheses = [r if i % 3 else r.replace("cat", "dog") for i, r in enumerate(references)]
    score = WER.score(references, hypotheses)
    low, high = score.interval
    assert 0 < low < score.value < high < 10
    assert WER.score(references, hypotheses).interval == (low, high)


def test_compare_is_paired():
    references = [f"item {i} of the list" for i in range(40)]
    worse = [r if i % 2 else r.replace("list", "lisp") for i, r in enumerate(references)]
    result = WER.compare(references, worse, references)
    assert result.difference == pytest.approx(10)
    assert result.interval[0] > 0
    assert WER.compare(references, [None, *worse[1:]], references).num_scored == 39


def test_signatures_name_library_and_normaliser():
    assert WER.score(["a"], ["a"]).signature == f"jiwer:{version('jiwer')}|level:word|corpus|norm:basic.v1"
    assert "tok:13a" in BLEU.score(["a"], ["a"]).signature


def test_each_language_has_the_tokeniser_and_the_error_rate_that_fit_it():
    assert [bleu_for(code) is BLEU for code in ("en", "fr", "vi")] == [True] * 3
    assert "tok:zh" in bleu_for("zh").score(["今天天气很好"], ["今天天气很好"]).signature
    assert "tok:char" in bleu_for("ja").score(["良い天気です"], ["良い天気です"]).signature
    assert error_rates_for("ko") == (WER, CER)
    assert [metric.name for metric in error_rates_for("th")] == ["CER"]


@pytest.mark.parametrize("language", ["zh", "ja", "th"])
def test_one_wrong_character_in_a_sentence_without_blanks_is_no_wrong_sentence(language):
    references, hypotheses = ["今天天气很好我们去公园", "你好 世界"], ["今天天气很坏我们去公园", "你好世界"]
    (rate,) = error_rates_for(language)
    assert rate.score(references, hypotheses).value == pytest.approx(100 / 15), "and blanks are no characters"
    assert rate.score(references, hypotheses, bootstrap=FAST).interval is not None
    found = bleu_for(language).score(references, hypotheses).value
    assert 50 < found < 100
    assert BLEU.score(references, hypotheses).value < 20
    tokenizer = {"zh": "zh"}.get(language, "char")
    assert found == sacrebleu.corpus_bleu(hypotheses, [references], tokenize=tokenizer).score


@pytest.mark.parametrize("language", ["zh", "th"])
@given(
    corpus=st.lists(st.tuples(st.text("今天气好", min_size=4), st.text("今天气好", min_size=1)), min_size=1, max_size=4)
)
@settings(max_examples=25, deadline=None)
def test_sums_of_statistics_give_the_corpus_value_without_blanks(language, corpus):
    for metric in (bleu_for(language), *error_rates_for(language)):
        sums = sum(metric.statistics(reference, hypothesis) for reference, hypothesis in corpus)
        assert metric.from_sums(sums) == pytest.approx(metric.corpus(corpus))


def test_asr_bleu_takes_the_tokeniser_of_the_language():
    assert "tok:zh" in asr_bleu(["今天天气很好"], ["今天天气很好"], language="zh", asr="x").signature


def test_a_signature_says_how_wide_an_unusual_interval_is():
    narrow = BootstrapConfig(num_resamples=20, confidence=0.5)
    assert WER.score(["a b", "c"], ["a b", "d"], bootstrap=narrow).signature.endswith("|norm:basic.v1|interval:50%")
    assert "interval" not in WER.score(["a b", "c"], ["a b", "d"], bootstrap=FAST).signature


def test_asr_bleu_normalises_both_sides_and_names_the_recogniser():
    score = asr_bleu(
        ["the train leaves at twenty one"], ["The train leaves at 21."], language="en", asr="moonshine-tiny"
    )
    assert (score.name, score.value) == ("ASR-BLEU", pytest.approx(100))
    assert score.signature.endswith("|norm:spoken.v1.en|asr:moonshine-tiny")


def test_lengths_must_agree():
    with pytest.raises(DataError, match="2 references but 1 hypotheses"):
        WER.score(["a", "b"], ["a"])
    with pytest.raises(DataError, match="at least 2"):
        WER.compare(["a"], ["a"], ["b"], normaliser=make_normaliser("none"))
