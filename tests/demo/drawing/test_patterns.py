"""The drawn surfaces: reproducible, told apart, and true to the colour that they are named after."""

import itertools

import numpy as np
import pytest

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, SURFACES
from llama_index_multimodal_rerank.demo.drawing.patterns import COLOUR_VALUES, paint, palette


def coordinates(size=112, units=6.0, turn=0.0):
    x, y = np.meshgrid(*2 * [np.arange(size, dtype=np.float32) * np.float32(units / size)])
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return x * cos - y * sin, x * sin + y * cos


def painted(surface, colour="teal", seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    return paint(surface, *coordinates(**kwargs), palette(colour, surface, rng), rng)


def nearest_name(value):
    return min(COLOURS, key=lambda name: float(np.linalg.norm(np.array(COLOUR_VALUES[name]) - value)))


def test_every_colour_has_a_value_and_no_two_are_alike():
    assert tuple(COLOUR_VALUES) == COLOURS
    for one, other in itertools.combinations(COLOUR_VALUES.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) > 0.2


@pytest.mark.parametrize("surface", SURFACES)
def test_a_picture_is_float32_in_range_and_of_the_coordinates_shape(surface):
    u, v = coordinates(turn=0.7)
    rng = np.random.default_rng(3)
    picture = paint(surface, u[:80] - 9, v[:80], palette("pink", surface, rng), rng)
    assert picture.shape == (80, 112, 3)
    assert picture.dtype == np.float32
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize("surface", SURFACES)
def test_the_same_seed_paints_the_same_and_another_does_not(surface):
    assert painted(surface, seed=5).tobytes() == painted(surface, seed=5).tobytes()
    assert painted(surface, seed=5).tobytes() != painted(surface, seed=6).tobytes()


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_ground_keeps_the_upper_hand(surface, colour):
    median = np.median(painted(surface, colour, units=7.0).reshape(-1, 3), axis=0)
    assert nearest_name(median) == colour


@pytest.mark.parametrize("colour", COLOURS)
def test_no_ground_strays_to_another_name(colour):
    for seed in range(50):
        chosen = palette(colour, "dots", np.random.default_rng(seed))
        assert nearest_name(chosen.ground) == colour


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("surface", ["dots", "stripes", "zebra", "brick"])
def test_ink_stands_out_from_the_ground(surface, colour):
    for seed in range(20):
        chosen = palette(colour, surface, np.random.default_rng(seed))
        assert np.linalg.norm(chosen.ink - chosen.ground) > 0.4


def test_surfaces_differ_from_one_another_at_the_size_of_a_thumbnail():
    thumbnails = {
        surface: painted(surface, "orange", size=120, units=5.0).reshape(60, 2, 60, 2, 3).mean(axis=(1, 3))
        for surface in SURFACES
    }
    for one, other in itertools.combinations(SURFACES, 2):
        assert np.abs(thumbnails[one] - thumbnails[other]).mean() > 0.03, (one, other)


def test_a_stripe_runs_straight_down():
    picture = painted("stripes")
    np.testing.assert_allclose(picture, np.broadcast_to(picture[:1], picture.shape))


def test_one_unit_holds_one_dot():
    rng = np.random.default_rng(1)
    chosen = palette("yellow", "dots", rng)
    u, v = coordinates(size=200, units=4.0)
    inked = np.linalg.norm(paint("dots", u, v, chosen, rng) - chosen.ink, axis=-1) < 0.05
    assert 0.27**2 * np.pi * 0.85 < inked.mean() < 0.33**2 * np.pi * 1.05


def test_unknown_names_are_refused_by_name():
    rng = np.random.default_rng(0)
    u, v = coordinates(size=8)
    with pytest.raises(ValueError, match=r"surface is 'paisley'.*leopard.*plain"):
        paint("paisley", u, v, palette("red", "dots", rng), rng)
    with pytest.raises(ValueError, match=r"surface is 'paisley'.*leopard.*plain"):
        palette("red", "paisley", rng)
    with pytest.raises(ValueError, match=r"colour is 'mauve'.*red.*grey"):
        palette("mauve", "dots", rng)


def test_coordinates_of_two_shapes_are_refused():
    rng = np.random.default_rng(0)
    u, v = coordinates(size=8)
    with pytest.raises(ValueError, match=r"\(8, 8\) and \(4, 8\)"):
        paint("dots", u, v[:4], palette("red", "dots", rng), rng)
