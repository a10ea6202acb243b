"""Which margin saves model calls: everything computed by hand."""

from __future__ import annotations

import doctest
import math

import pytest

from llama_index_multimodal_rerank import JudgedQuery, choose_margin
from llama_index_multimodal_rerank.reranking import margins
from llama_index_multimodal_rerank.reranking.margins import margin_effect, margin_effects, score_margin


def test_the_examples_run():
    found = doctest.testmod(margins)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("scores", "places", "expected"),
    [
        ([0.75, 0.5, 0.25], (1, 2), 0.25),
        ([0.75, 0.5, 0.25], (2, 3), 0.25),
        ([0.75, 0.5, 0.25], (1, 3), 0.5),
        ([0.75, 0.5, 0.25], (1, 9), 0.5),  # the list ends before: its last
        ([0.75, 0.5, 0.25], (3, 4), None),  # nothing is left out that could be compared
        ([0.25, 0.5], (1, 2), -0.25),  # distances: the nearest has the lowest
        ([0.75, None, 0.25], (1, 3), 0.5),  # what lies between does not matter
        ([0.75, None], (1, 2), None),
        ([None, 0.5], (1, 2), None),
        ([math.inf, 0.5], (1, 2), None),
        ([math.nan, 0.5], (1, 2), None),
        ([0.75], (1, 2), None),
        ([], (1, 2), None),
    ],
)
def test_score_margin(scores, places, expected):
    assert score_margin(scores, places) == expected


# Margins 1/2, 1/4, 1/4, 1/8 and one that cannot be said; what reranking gains: 0, 1/4, -1/8, 1/2, 1/8.
QUERIES = [
    JudgedQuery([1.0, 0.5], before=0.5, after=0.5, calls=1),
    JudgedQuery([1.0, 0.75], before=0.5, after=0.75, calls=1),
    JudgedQuery([0.5, 0.25], before=1.0, after=0.875, calls=2),
    JudgedQuery([0.5, 0.375], before=0.25, after=0.75, calls=2),
    JudgedQuery([None, None], before=0.5, after=0.625, calls=2),
]


def test_effects_of_every_margin():
    """Of 8 calls, and a mean of (0.5 + 0.75 + 0.875 + 0.75 + 0.625) / 5 = 0.7 with everything reranked.

    From 1/2 on: the first skipped, 7 calls, nothing lost. From 1/4: three skipped, 4 calls, lost
    (0 + 0.25 - 0.125) / 5 = 0.025. From 1/8: four skipped, 2 calls, lost 0.025 + 0.5 / 5 = 0.125.
    """
    effects = margin_effects(QUERIES)
    assert [effect.margin for effect in effects] == [None, 0.5, 0.25, 0.125]
    assert [effect.calls for effect in effects] == [1.0, 7 / 8, 4 / 8, 2 / 8]
    assert [effect.loss for effect in effects] == pytest.approx([0, 0, 0.025, 0.125])
    assert [effect.quality for effect in effects] == pytest.approx([0.7, 0.7, 0.675, 0.575])
    # Losses 0, 1/4, -1/8, 0, 0 around 1/40: squares, in 1600ths, 1 + 81 + 36 + 1 + 1 = 120, that is 0.075;
    # over 4 they are 0.01875, and the error is the root of a fifth of that: 0.0612.
    assert effects[2].error == pytest.approx(math.sqrt(0.01875 / 5))
    assert effects[0].error == effects[1].error == 0


def test_between_two_margins_nothing_changes():
    assert margin_effect(QUERIES, 0.2).calls == margin_effect(QUERIES, 0.25).calls == 4 / 8
    assert margin_effect(QUERIES, 0.26).calls == 7 / 8


@pytest.mark.parametrize(
    ("max_loss", "standard_errors", "margin"),
    [
        (0.0, 0, 0.5),
        (0.024, 0, 0.5),
        (0.025, 0, 0.25),  # exactly what may be lost
        (0.025, 1, 0.5),  # 0.025 + 0.0612 = 0.0862
        (0.087, 1, 0.25),
        (0.125, 0, 0.125),
        (1.0, 1, 0.125),
    ],
)
def test_the_margin_that_saves_most(max_loss, standard_errors, margin):
    assert choose_margin(QUERIES, max_loss=max_loss, standard_errors=standard_errors).margin == margin


def test_a_margin_below_one_that_loses_too_much_is_not_tried():
    """The first would lose 1/2; that the second gains as much is luck."""
    queries = [JudgedQuery([1.0, 0.5], 0.0, 0.5), JudgedQuery([1.0, 0.75], 0.5, 0.0)]
    assert margin_effect(queries, 0.25).loss == 0
    assert choose_margin(queries, max_loss=0.1, standard_errors=0).margin is None


def test_other_places():
    queries = [JudgedQuery([1.0, 1.0, 0.5], 0.5, 0.5), JudgedQuery([1.0, 0.5, 0.5], 0.0, 1.0)]
    assert choose_margin(queries, places=(1, 2)).margin is None
    assert choose_margin(queries, places=(2, 3)).margin == 0.5


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="no queries"):
        choose_margin([])
    with pytest.raises(ValueError, match=r"max_loss must be 0 or more, got -0\.1"):
        choose_margin(QUERIES, max_loss=-0.1)
    with pytest.raises(ValueError, match="standard_errors must be 0 or more, got nan"):
        choose_margin(QUERIES, standard_errors=math.nan)
    with pytest.raises(ValueError, match=r"got \(2, 1\)"):
        choose_margin(QUERIES, places=(2, 1))
