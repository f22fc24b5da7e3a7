import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import VocabularyError
from speechllm.vocabulary import SEMANTIC, SPECIAL, TEXT, Vocabulary

sizes = st.lists(st.integers(1, 5000), min_size=1, max_size=6).map(
    lambda values: [(f"block{i}", size) for i, size in enumerate(values)]
)


@given(sizes)
def test_every_id_belongs_to_exactly_one_block(sizes):
    vocabulary = Vocabulary.from_sizes(sizes)
    owners = np.zeros(vocabulary.size, int)
    for block in vocabulary.blocks:
        owners[block.start : block.stop] += 1
    assert (owners == 1).all()
    assert vocabulary.size == sum(size for _, size in sizes)


@given(sizes, st.data())
def test_codes_to_ids_and_back_is_the_identity(sizes, data):
    vocabulary = Vocabulary.from_sizes(sizes)
    block = data.draw(st.sampled_from(vocabulary.blocks))
    codes = np.array(data.draw(st.lists(st.integers(0, block.size - 1), max_size=50)), dtype=np.int64)
    ids = vocabulary.to_ids(block.name, codes)
    assert np.array_equal(vocabulary.to_codes(block.name, ids), codes)
    assert all(vocabulary.blocks[i] is block for i in vocabulary.block_indices(ids))


@given(sizes)
def test_manifest_round_trips_through_json(sizes):
    vocabulary = Vocabulary.from_sizes(sizes)
    again = Vocabulary.from_manifest(json.loads(json.dumps(vocabulary.manifest())))
    assert again == vocabulary
    assert again.hash == vocabulary.hash


def test_text_ids_keep_their_numbers():
    vocabulary = Vocabulary.for_speech(num_text_ids=600, num_semantic_codes=512)
    assert vocabulary[TEXT].start == 0
    assert vocabulary[TEXT].size == 600
    assert vocabulary.next_id == vocabulary[SPECIAL].start == 600
    assert vocabulary.to_ids(SEMANTIC, [0, 511]).tolist() == [601, 1112]


@pytest.mark.golden
def test_hash_of_a_layout_never_changes():
    # Stored in every checkpoint: a change here would orphan them all.
    assert Vocabulary.for_speech(600, 512).hash == "faf75f52736c584c"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda v: v.to_ids("semantic", [0, 8]), r"codes for block 'semantic' range over 0..8, expected 0..7"),
        (lambda v: v.to_ids("semantic", [-1]), "range over -1..-1"),
        (lambda v: v.to_codes("semantic", [3]), r"block 'semantic' holds 11..18"),
        (lambda v: v.to_ids("semantics", [0]), r"no block 'semantics' in the vocabulary; did you mean 'semantic'\?"),
        (lambda v: v.to_ids("semantic", np.array([0.5])), "dtype float64, expected integers"),
        (lambda v: v.block_indices([19]), r"expected 0..18"),
        (lambda v: Vocabulary.from_sizes([("a", 0)]), "size 0, expected at least 1"),
        (lambda v: Vocabulary.from_sizes([("a", 1), ("a", 1)]), "block names repeat"),
        (lambda v: Vocabulary.from_manifest({**v.manifest(), "hash": "0"}), "it was edited"),
        (lambda v: Vocabulary.from_manifest({**v.manifest(), "version": 9}), "has version 9"),
        (lambda v: Vocabulary.from_manifest({}), "manifest is broken"),
    ],
)
def test_mistakes_get_one_clear_line(act, message):
    with pytest.raises(VocabularyError, match=message) as caught:
        act(Vocabulary.for_speech(10, 8))
    assert "\n" not in str(caught.value)
