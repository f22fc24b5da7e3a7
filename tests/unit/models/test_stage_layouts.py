import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import ConfigError, VocabularyError
from speechllm.models.stage_layouts import STAGES, CodeSizes, remove_repeats, stage_layout


@st.composite
def sizes(draw):
    num_codebooks = draw(st.integers(2, 6))
    return CodeSizes(
        num_conditions=draw(st.integers(2, 40)),
        codebook_size=draw(st.integers(2, 40)),
        num_codebooks=num_codebooks,
        num_coarse=draw(st.integers(1, num_codebooks - 1)),
    )


def draw_codes(blocks, layout, T, rng):
    if not blocks:
        return np.zeros((0, 0), np.int64)
    return np.stack([rng.integers(layout.vocabulary[name].size, size=T) for name in blocks])


@given(sizes(), st.sampled_from(STAGES), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_decode_is_the_exact_inverse_and_every_id_is_legal_where_it_stands(sizes, stage, n, T, end, seed):
    layout, rng = stage_layout(stage, sizes), np.random.default_rng(seed)
    prefix = draw_codes(layout.prefix_blocks, layout, n, rng)
    target = draw_codes(layout.target_blocks, layout, T, rng)
    ids = layout.encode(prefix, target, end=end)
    ended = end and layout.eos_id is not None
    assert len(ids) == prefix.size + 1 + target.size + ended
    again = layout.decode(ids)
    assert np.array_equal(again.prefix, prefix)
    assert np.array_equal(again.target, target)
    assert again.ended == ended
    for position, token in enumerate(ids[prefix.size + 1 :]):
        assert token in layout.legal_ids(position)


@given(sizes(), st.sampled_from(STAGES))
def test_levels_and_marks_share_no_id(sizes, stage):
    layout = stage_layout(stage, sizes)
    marks = [layout.bos_id] + ([layout.eos_id] if layout.eos_id is not None else [])
    blocks = [layout.vocabulary[name] for name in layout.prefix_blocks + layout.target_blocks]
    used = marks + [id_ for block in blocks for id_ in range(block.start, block.stop)]
    assert sorted(used) == list(range(layout.vocabulary.size))
    legal = [set(layout.legal_ids(k).tolist()) - set(marks) for k in range(layout.num_levels)]
    assert sum(len(ids) for ids in legal) == len(set().union(*legal))


@given(st.lists(st.integers(0, 3), max_size=30))
def test_repeats_come_back_from_their_lengths(codes):
    codes = np.array(codes, dtype=np.int64)
    kept, lengths = remove_repeats(codes)
    assert np.array_equal(np.repeat(kept, lengths), codes)
    assert bool((kept[1:] != kept[:-1]).all())
    assert np.array_equal(remove_repeats(kept)[0], kept)


@pytest.mark.golden
def test_coarse_ids_of_the_paper_s_sizes():
    # Time-major, level-minor, level q shifted by q * 1024 (arXiv:2209.03143, section 3), after the semantic codes.
    sizes = CodeSizes(num_conditions=1024, codebook_size=1024, num_codebooks=12, num_coarse=4)
    ids = stage_layout("coarse", sizes).encode(np.array([[7]]), np.array([[1, 5], [2, 6], [3, 7], [4, 8]]), end=True)
    coarse = [1024 * (1 + q) + code for frame in ([1, 2, 3, 4], [5, 6, 7, 8]) for q, code in enumerate(frame)]
    assert ids.tolist() == [7, 5 * 1024, *coarse, 5 * 1024 + 1]
    assert len(stage_layout("fine", sizes).target_blocks) == 8


def test_eos_is_legal_between_frames_only():
    sizes = CodeSizes(num_conditions=5, codebook_size=4, num_codebooks=4, num_coarse=2)
    layout = stage_layout("coarse", sizes)
    assert [layout.eos_id in layout.legal_ids(position) for position in range(4)] == [True, False, True, False]
    assert stage_layout("fine", sizes).eos_id is None


def test_what_is_no_row_is_refused():
    layout = stage_layout("coarse", CodeSizes(num_conditions=5, codebook_size=4, num_codebooks=4, num_coarse=2))
    ids = layout.encode(np.array([[1, 2]]), np.array([[0, 1], [2, 3]]), end=False)
    with pytest.raises(VocabularyError, match="no whole frames"):
        layout.decode(ids[:-1])
    with pytest.raises(VocabularyError, match="0 BOS"):
        layout.decode(ids[:2])
    with pytest.raises(VocabularyError, match="block 'level_0'"):
        layout.decode(np.concatenate((ids, ids[-2:][::-1])))
    with pytest.raises(VocabularyError, match="another tokenizer"):
        layout.encode(np.array([[5]]), np.array([[0], [0]]), end=False)
    with pytest.raises(VocabularyError, match="has levels level_0, level_1, got 1"):
        layout.encode(np.array([[1]]), np.array([[0]]), end=False)


def test_sizes_without_a_fine_stage():
    sizes = CodeSizes(num_conditions=5, codebook_size=4, num_codebooks=3, num_coarse=3)
    assert stage_layout("coarse", sizes).num_levels == 3
    with pytest.raises(ConfigError, match="no fine stage"):
        stage_layout("fine", sizes)
    with pytest.raises(ConfigError, match="num_coarse = 4"):
        CodeSizes(num_conditions=5, codebook_size=4, num_codebooks=3, num_coarse=4)
