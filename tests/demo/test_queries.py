"""Queries say what they want, and never show what training must not."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, HELD_OUT, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import (
    COMPOSED,
    FAMILIES,
    KIND_WORDS,
    SOURCES,
    SURFACE_WORDS,
    describe,
    make_query,
)

SEEN = [
    Look(kind, surface, colour)
    for kind in KINDS
    for surface in SURFACES
    for colour in COLOURS
    if (kind, surface) not in HELD_OUT
]


def queries(family: str, *, unseen_wording: bool = False):
    rng = np.random.default_rng(5)
    for target in SEEN[::7]:
        yield target, make_query(family, target, rng, unseen_wording=unseen_wording)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_answers_its_query(family: str) -> None:
    for target, query in queries(family):
        assert query.family == family
        assert query.is_answered_by(target)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_never_shows_a_held_out_look(family: str) -> None:
    for _, query in queries(family):
        if isinstance(query.picture, Look):
            assert not query.picture.held_out


def test_words_and_picture_together_say_what_is_wanted() -> None:
    for family in COMPOSED:
        for target, query in queries(family):
            said_kind = any(word in query.text for word in KIND_WORDS[target.kind])
            said_surface = any(word in query.text for word in SURFACE_WORDS[target.surface])
            shown = query.picture
            shows_kind = isinstance(shown, Look) and shown.kind == target.kind
            shows_surface = shown == target.surface or (
                isinstance(shown, Look) and shown.surface == target.surface
            )
            assert said_kind or shows_kind
            assert said_surface or shows_surface
            if query.colour is not None:
                assert query.colour in query.text


def test_edits_change_what_they_name_and_nothing_else() -> None:
    parts = {"kind edit": "kind", "colour edit": "colour", "surface edit": "surface"}
    for family, changed in parts.items():
        for target, query in queries(family):
            assert isinstance(query.picture, Look)
            different = {
                part
                for part in ("kind", "surface", "colour")
                if getattr(query.picture, part) != getattr(target, part)
            }
            assert different == {changed}


def test_wordings_for_evaluation_are_not_trained() -> None:
    for family in FAMILIES[:-1]:
        trained = {query.text for _, query in queries(family)}
        assert not trained & {query.text for _, query in queries(family, unseen_wording=True)}


def test_a_held_out_target_is_possible_with_trained_words() -> None:
    target = Look("phone case", "leopard", "yellow")
    query = make_query("colour edit", target, np.random.default_rng(0))
    assert isinstance(query.picture, Look)
    assert (query.picture.kind, query.picture.surface) == ("phone case", "leopard")


def test_only_the_right_product_answers() -> None:
    query = make_query("colour edit", Look("mug", "dots", "red"), np.random.default_rng(0))
    assert query.is_answered_by(Look("mug", "dots", "red"))
    for other in (Look("cushion", "dots", "red"), Look("mug", "zebra", "red"), Look("mug", "dots", "blue")):
        assert not query.is_answered_by(other)
    with pytest.raises(ValueError, match=r"family must be one of pattern, .*got 'riddle'"):
        make_query("riddle", Look("mug", "dots", "red"), np.random.default_rng(0))


def test_captions() -> None:
    assert describe(Look("umbrella", "zebra", "orange")) == "an orange umbrella with zebra print"
    assert describe("brick") == "a brick wall"
    assert set(SOURCES) == set(SURFACES)
