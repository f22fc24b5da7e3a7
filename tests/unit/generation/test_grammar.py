"""The grammar: legal ids by construction, limits, loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AddedToken

from speechllm.errors import TaskError
from speechllm.generation.grammar import CLOSING, FREE, LAST, OPEN, Limits, Progress, head_rows
from speechllm.processor import UnifiedProcessor
from speechllm.vocabulary import SEMANTIC, Vocabulary
from tests.support.tiny import tiny_processor, tiny_text_tokenizer

PROCESSOR = tiny_processor(semantic=False)
VOCABULARY, EOS = PROCESSOR.vocabulary, PROCESSOR.eos_id
NEXT = VOCABULARY.next_id
LIMITS = Limits(
    min_tokens=(0, 2), max_tokens=(20, 30), loop_span=(6, 8), loop_period=(3, 4), loop_repeats=3
)  # fmt: skip


def progress(*grammars, limits: Limits = LIMITS) -> Progress:
    return Progress(list(grammars), limits, (NEXT, EOS))


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_rows_hold_what_their_modality_needs(modality):
    rows = head_rows(PROCESSOR, modality)
    legal = [set(rows.ids[rows.legal[state]].tolist()) for state in range(6)]
    assert legal[OPEN] == legal[OPEN + LAST]
    assert legal[FREE] == legal[OPEN] | {NEXT}
    assert legal[FREE + LAST] == legal[OPEN] | {EOS}
    assert (legal[CLOSING], legal[CLOSING + LAST]) == ({NEXT}, {EOS})
    if modality == "audio":
        assert legal[OPEN] == set(range(VOCABULARY[SEMANTIC].start, VOCABULARY[SEMANTIC].stop))
    else:
        assert legal[OPEN] == set(range(len(PROCESSOR.text_tokenizer))) - {0, 1, 2}
        assert rows.ids.tolist() == list(range(NEXT + 1)), "a prefix, so that no copy of the matrix is needed"


def test_special_tokens_without_a_name_are_no_text():
    """Such as <|eot_id|> and the reserved ones of Llama 3: decoding would drop them silently."""
    tokenizer = tiny_text_tokenizer()
    tokenizer.add_tokens([AddedToken("<|reserved_0|>", special=True), AddedToken("<word>", special=False)])
    reserved, word = tokenizer.convert_tokens_to_ids(["<|reserved_0|>", "<word>"])
    assert reserved not in tokenizer.all_special_ids, "else this test tests nothing"
    rows = head_rows(UnifiedProcessor(tokenizer, Vocabulary.for_speech(len(tokenizer), 16), None), "text")
    legal = set(rows.ids[rows.legal[OPEN]].tolist())
    assert reserved not in legal
    assert word in legal


def test_parts_follow_each_other():
    p = progress(("text", "audio"), ("audio",))
    assert p.modality.tolist() == [0, 1]
    assert p.states().tolist() == [FREE, OPEN + LAST]
    p.advance(np.array([5, 330]))
    p.advance(np.array([NEXT, 331]))
    assert p.modality.tolist() == [1, 1]
    assert p.states().tolist() == [OPEN + LAST, FREE + LAST]
    p.advance(np.array([330, EOS]))
    assert p.finished.tolist() == [False, True]
    assert p.stops == [["closed"], ["closed"]]


@given(
    period=st.integers(1, 3),
    lead=st.integers(0, 5),
)
def test_a_loop_is_seen_when_it_is_long_enough(period: int, lead: int):
    """The pattern must stand three times and span six ids; what stands before it does not matter."""
    p = progress(("text",))
    for i in range(lead):
        p.advance(np.array([100 + i]))
    steps = 0
    while p.states()[0] != CLOSING + LAST:
        p.advance(np.array([10 + steps % period]))
        steps += 1
    assert steps == max(6, 3 * period)
    assert p.closing_reason(0) == "loop"
    p.advance(np.array([EOS]))
    assert p.stops == [["loop"]]


def test_longer_patterns_are_no_loops():
    p = progress(("text",))
    for i in range(19):
        p.advance(np.array([10 + i % 4]))
    assert p.states()[0] == FREE + LAST
    p.advance(np.array([13]))
    assert p.states()[0] == CLOSING + LAST
    assert p.closing_reason(0) == "too_long"


def test_loops_do_not_reach_over_parts():
    p = progress(("text", "text"))
    for _ in range(5):
        p.advance(np.array([10]))
    p.advance(np.array([NEXT]))
    for _ in range(5):
        p.advance(np.array([10]))
    assert p.states()[0] == FREE + LAST


def test_selected_rows_go_on_as_they_were():
    grammars = [("text", "audio"), ("audio",), ("text",)]
    whole = progress(*grammars)
    rng = np.random.default_rng(0)
    for _ in range(4):
        whole.advance(rng.integers(10, 12, size=3))
    part = whole.select(np.array([2, 0, 2]))
    for _ in range(12):
        ids = rng.integers(10, 11, size=3)
        whole.advance(ids)
        part.advance(ids[[2, 0, 2]])
        assert part.states().tolist() == whole.states()[[2, 0, 2]].tolist()


def test_an_empty_grammar_is_refused():
    with pytest.raises(TaskError, match="no output part"):
        progress(())
