"""Borda's rule, Kendall's W and the sliding windows, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_multimodal_rerank.reranking.aggregation import borda_count, kendall_w
from llama_index_multimodal_rerank.reranking.windows import sliding_windows


def test_borda_by_hand():
    # Points of 0, 1, 2: (2+2+0), (1+0+2), (0+1+1) = 4, 3, 2 of 6.
    assert borda_count([(0, 1, 2), (0, 2, 1), (1, 2, 0)]) == ((0, 1, 2), (4 / 6, 3 / 6, 2 / 6))
    assert borda_count([(2, 0, 1), (2, 1, 0)]) == ((2, 0, 1), (1.0, 0.25, 0.25))  # tie: lower index first
    assert borda_count([(0,)]) == ((0,), (1.0,))


def test_kendall_w_by_hand():
    assert kendall_w([(0, 1, 2), (0, 1, 2)]) == 1.0
    assert kendall_w([(0, 1, 2), (2, 1, 0)]) == 0.0
    # Places summed: 0, 3, 3; mean 2; S = 4 + 1 + 1 = 6; W = 12 * 6 / (4 * 24).
    assert kendall_w([(0, 1, 2), (0, 2, 1)]) == 0.75
    assert kendall_w([(0,), (0,)]) == 1.0


@given(st.lists(st.permutations(range(7)), min_size=1, max_size=6))
def test_borda_is_a_permutation_with_falling_scores(orders):
    order, scores = borda_count(orders)

    assert sorted(order) == list(range(7))
    assert list(scores) == sorted(scores, reverse=True)
    assert -1e-12 <= kendall_w(orders) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("n", "window", "stride", "spans"),
    [
        (5, 9, 4, [(0, 5)]),
        (9, 9, 4, [(0, 9)]),
        (10, 4, 2, [(6, 10), (4, 8), (2, 6), (0, 4)]),
        (11, 4, 2, [(7, 11), (5, 9), (3, 7), (1, 5), (0, 4)]),
        (0, 4, 2, [(0, 0)]),
    ],
)
def test_windows_by_hand(n, window, stride, spans):
    assert sliding_windows(n, window, stride) == spans


@given(st.integers(1, 100), st.integers(2, 25), st.data())
def test_the_best_reaches_the_top_from_anywhere(n, window, data):
    stride = data.draw(st.integers(1, window - 1))
    items = data.draw(st.permutations(range(n)))

    for start, end in sliding_windows(n, window, stride):
        assert 0 < end - start <= window
        items[start:end] = sorted(items[start:end])

    assert items[0] == 0
    assert sorted(items) == list(range(n))
