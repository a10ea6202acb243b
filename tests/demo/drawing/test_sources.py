"""Pictures of where surfaces come from: reproducible, varied, and unlike one another."""

import itertools

import numpy as np
import pytest

from llama_index_multimodal_rerank.demo.drawing.looks import SURFACES
from llama_index_multimodal_rerank.demo.drawing.sources import draw_source


@pytest.mark.parametrize("surface", SURFACES)
def test_the_same_arguments_draw_the_same_and_another_seed_does_not(surface):
    picture = draw_source(surface, 4)
    assert picture.mode == "RGB"
    assert picture.size == (224, 224)
    assert picture.tobytes() == draw_source(surface, 4).tobytes()
    assert picture.tobytes() != draw_source(surface, 5).tobytes()


@pytest.mark.parametrize("surface", SURFACES)
def test_size_changes_the_resolution_and_not_the_scene(surface):
    small = draw_source(surface, 2, size=112)
    assert small.size == (112, 112)
    reduced = np.asarray(draw_source(surface, 2).reduce(28), float)
    assert np.abs(reduced - np.asarray(small.reduce(14), float)).mean() < 14


def test_sources_differ_from_one_another():
    pictures = {surface: np.asarray(draw_source(surface, 0).reduce(4), float) for surface in SURFACES}
    for one, other in itertools.combinations(SURFACES, 2):
        assert np.abs(pictures[one] - pictures[other]).mean() > 20, (one, other)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"surface is 'paisley'.*leopard.*plain"):
        draw_source("paisley", 0)
    with pytest.raises(ValueError, match="seed is -1"):
        draw_source("dots", -1)
    with pytest.raises(ValueError, match="size is 4"):
        draw_source("dots", 0, size=4)
