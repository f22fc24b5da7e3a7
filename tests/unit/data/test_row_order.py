"""A choice is the list of what was chosen, an order a permutation, whatever the size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speechllm.data import row_order
from speechllm.data.row_order import Chosen, ShuffledOrder, scattered


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_choice_is_the_list_of_what_was_chosen(sizes, share, seed):
    generator = np.random.default_rng(seed)
    masks = [generator.random((size, 2)) < share for size in sizes]
    expected = [(b, p, bool(d)) for b, mask in enumerate(masks) for p in range(len(mask)) for d in (0, 1) if mask[p, d]]
    chosen = Chosen(masks)
    assert [chosen[i] for i in range(len(chosen))] == expected


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 3))
def test_a_scattered_order_has_everything_once(size, seed, epoch):
    assert sorted(scattered(place, size, (seed, 0, epoch)) for place in range(size)) == list(range(size))


def test_scattered_orders_look_drawn():
    """Neighbours land anywhere, and keys that differ in one number have nothing in common."""
    size = 5000
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    orders = np.array([[scattered(place, size, key) for place in range(size)] for key in keys])
    correlations = np.corrcoef([*orders, np.roll(orders[0], 1), np.arange(size)])[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(size)
    fixed = (orders[0] == np.arange(size)).sum()
    assert fixed < 8, "one is expected"
    assert np.abs(np.diff(orders[0])).mean() / size - 1 / 3 < 0.02


def test_short_orders_are_listed_and_long_ones_computed(monkeypatch):
    listed = [ShuffledOrder([3, 1], 50)(2, place) for place in range(50)]
    assert listed == np.random.default_rng([3, 1, 2, 3]).permutation(50).tolist()
    monkeypatch.setattr(row_order, "LISTED", 49)
    order = ShuffledOrder([3, 1], 50)
    computed = [order(2, place) for place in range(50)]
    assert sorted(computed) == sorted(listed)
    assert computed != listed
    assert order._listed is None
