"""Products are drawn: the same from the same arguments, and recognisable by surface and colour."""

import itertools

import numpy as np
import pytest

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.drawing.patterns import COLOUR_VALUES
from llama_index_multimodal_rerank.demo.drawing.products import draw, draw_product
from llama_index_multimodal_rerank.demo.drawing.shapes import SHAPES


def test_every_kind_has_a_shape():
    assert tuple(SHAPES) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_draw_the_same_bytes(kind):
    look = Look(kind, "leopard", "teal")
    first = draw_product(look, 7, 96).tobytes()
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    draw_product(Look("mug", "dots", "red"), 8, 96)
    assert draw_product(look, 7, 96).tobytes() == first


@pytest.mark.parametrize("size", [60, 112, 224])
def test_the_picture_is_a_square_rgb_of_the_size_asked_for(size):
    picture = draw_product(Look("shoe", "zebra", "blue"), 0, size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_the_size_is_224_unless_told():
    assert draw_product(Look("dress", "hearts", "pink"), 3).size == (224, 224)


def test_seeds_and_each_part_of_the_look_change_the_picture():
    looks = [
        Look("mug", "dots", "red"),
        Look("cushion", "dots", "red"),
        Look("mug", "stars", "red"),
        Look("mug", "dots", "blue"),
    ]
    pictures = {draw_product(look, seed, 64).tobytes() for look in looks for seed in range(5)}
    assert len(pictures) == 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_goes_on_every_kind_and_can_be_seen(kind, surface):
    drawing = draw(Look(kind, surface, "orange"), 1, 96)
    on_product = np.asarray(drawing.picture, dtype=float)[drawing.surface > 0.99]
    plain = draw(Look(kind, "plain", "orange"), 1, 96)
    on_plain = np.asarray(plain.picture, dtype=float)[plain.surface > 0.99]
    if surface != "plain":
        assert on_product.std(axis=0).sum() > 1.3 * on_plain.std(axis=0).sum()


@pytest.mark.parametrize(("kind", "colour"), list(itertools.product(KINDS, COLOURS)))
def test_a_plain_product_has_the_colour_it_is_named_after(kind, colour):
    values = np.array([COLOUR_VALUES[name] for name in COLOURS])
    for seed in range(4):
        drawing = draw(Look(kind, "plain", colour), seed, 112)
        pixels = np.asarray(drawing.picture)[drawing.surface > 0.9] / 255
        distance = np.linalg.norm(values - np.median(pixels, axis=0), axis=1)
        assert COLOURS[int(distance.argmin())] == colour


@pytest.mark.parametrize("kind", KINDS)
def test_the_product_fills_the_picture_and_stays_inside(kind):
    for seed in range(20):
        covered = draw(Look(kind, "plain", "grey"), seed, 100).product > 0.5
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 72 <= extent <= 97
        assert min(rows[0], columns[0]) > 0
        assert max(rows[-1], columns[-1]) < 99


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_product_shows_its_surface(kind):
    for seed in range(20):
        drawing = draw(Look(kind, "plain", "grey"), seed, 112)
        assert drawing.surface.sum() >= 0.7 * drawing.product.sum()


@pytest.mark.parametrize(
    ("parts", "wrong", "allowed"),
    [
        (("teapot", "dots", "red"), "kind is 'teapot'", KINDS),
        (("mug", "paisley", "red"), "surface is 'paisley'", SURFACES),
        (("mug", "dots", "beige"), "colour is 'beige'", COLOURS),
    ],
)
def test_a_look_that_does_not_exist_is_refused_with_those_that_do(parts, wrong, allowed):
    with pytest.raises(ValueError, match=wrong) as refusal:
        Look(*parts)
    assert all(name in str(refusal.value) for name in allowed)


def test_a_negative_seed_and_a_tiny_size_are_refused():
    with pytest.raises(ValueError, match="seed is -1"):
        draw_product(Look("mug", "dots", "red"), -1)
    with pytest.raises(ValueError, match="size is 8 pixels; it must be 16 or more"):
        draw_product(Look("mug", "dots", "red"), 0, 8)
