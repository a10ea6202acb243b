"""What a person would check on a sheet, in the pixels the model sees."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from llama_index_multimodal_rerank.models.hd_geometry import hd_size, num_image_tokens
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionImageProcessor
from llama_index_multimodal_rerank.reranking.sheet import Cell, build_sheet
from llama_index_multimodal_rerank.reranking.sheet_layout import TILE, plan_sheet

RED = (170, 0, 0)
MOST_CROPS = 909  # with more, a sheet takes more than the 131,072 positions of Phi-3 Vision
SHAPES = list(itertools.product(range(1, 26), (True, False), (1, 4, 16)))


def plain(colour, size=(40, 30)):
    return Image.new("RGB", size, colour)


def palette(n):
    """n colours far apart from each other, from black, white, grey and the red of the frame."""
    levels = (40, 130, 220)
    colours = [c for c in itertools.product(levels, repeat=3) if len(set(c)) > 1]
    return [colours[i % len(colours)] for i in range(n)]


def overlap(a, b):
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


@pytest.mark.parametrize(("n", "query", "crops"), SHAPES)
def test_geometry(n, query, crops):
    layout = plan_sheet(n, query=query, num_crops=crops, text=n % 2 == 0)

    width, height = layout.size
    # One pixel drawn is one pixel seen.
    assert hd_size(width, height, crops) == (width, height, width, height)
    frames = [cell.frame for cell in layout.cells] + ([layout.query.frame] if query else [])
    assert len(frames) == n + query
    for frame in frames:
        assert frame.left >= 4
        assert frame.top >= 4
        assert frame.right <= width - 4
        assert frame.bottom <= height - 4
    assert not any(overlap(a, b) for a, b in itertools.combinations(frames, 2))
    for cell in [*layout.cells, *([layout.query] if query else [])]:
        assert cell.picture.size == (layout.picture_side, layout.picture_side)
        parts = [cell.label, cell.picture, *([cell.text] if cell.text else [])]
        assert not any(overlap(a, b) for a, b in itertools.combinations(parts, 2))
        # No label lies on two rows of tiles, nor on two columns of them if there was room.
        assert cell.label.top // TILE == (cell.label.bottom - 1) // TILE
        if layout.picture_side >= 3 * layout.label_height:
            assert cell.label.left // TILE == (cell.label.right - 1) // TILE


@pytest.mark.parametrize(
    ("n", "tiles", "side"), [(3, 12, 428), (9, 12, 275), (12, 15, 275), (16, 16, 249), (25, 16, 206)]
)
def test_tiles_are_as_many_as_pictures_of_256_pixels_need(n, tiles, side):
    """With 16 tiles at most, sheets have 12, 15 or 16: smaller ones would be enlarged."""
    layout = plan_sheet(n, query=True, num_crops=16)
    assert layout.size[0] * layout.size[1] == tiles * TILE**2
    assert layout.picture_side == side


@pytest.mark.parametrize("crops", [*range(1, 129), *range(129, MOST_CROPS, 37), MOST_CROPS])
def test_every_num_crops_has_a_layout_that_the_processor_leaves_unchanged(crops):
    """The arithmetic is that of floats: (7 tiles) / (7 / 5) is not 5, so a grid may fit and be resized."""
    for n, query in ((1, True), (9, True), (25, False)):
        width, height = plan_sheet(n, query=query, num_crops=crops).size
        assert hd_size(width, height, crops) == (width, height, width, height)
        assert num_image_tokens(height, width) < 131_072


@pytest.mark.parametrize("crops", [54, 55])
def test_a_sheet_is_seen_as_it_was_drawn(crops):
    sheet = build_sheet([Cell(plain(colour)) for colour in palette(9)], plain((0, 0, 255)), num_crops=crops)

    seen = Phi3VisionImageProcessor().hd_transform(sheet.image, crops)

    assert seen.size == sheet.image.size
    assert (np.asarray(seen) == np.asarray(sheet.image)).all()


def digit_template(text, size, height):
    """The label as a person would set it, drawn here and not by the code under test."""
    image = Image.new("L", size, 0)
    font = ImageFont.load_default(size=height)
    ImageDraw.Draw(image).text((size[0] / 2, size[1] / 2), text, font=font, fill=255, anchor="mm")
    return np.asarray(image, dtype=float)


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


@pytest.mark.parametrize(
    ("n", "crops"), [(25, 1), (9, 1), (25, 4), (9, 4), (3, 4), (25, 16), (9, 16), (1, 16)]
)
def test_every_label_is_readable_at_the_resolution_the_model_sees(n, crops):
    cells = [Cell(plain(colour, (100, 100))) for colour in palette(n)]
    sheet = build_sheet(cells, plain((0, 0, 255)), num_crops=crops)

    seen = Phi3VisionImageProcessor().hd_transform(sheet.image, crops)

    assert seen.size == sheet.image.size
    for number, boxes in enumerate(sheet.layout.cells, start=1):
        strip = np.asarray(seen.crop(boxes.label).convert("L"), dtype=float)
        # (Nearly) white on black is a contrast above 16:1, and the digits are high enough to be told apart.
        assert strip.min() == 0
        assert strip.max() >= 230
        inked = np.flatnonzero((strip > 128).any(axis=1))
        assert inked[-1] - inked[0] + 1 >= 10
        columns = np.flatnonzero((strip > 128).any(axis=0))
        assert columns[0] > 0  # nothing is cut off
        assert columns[-1] < strip.shape[1] - 1
        assert inked[0] > 0
        assert inked[-1] < strip.shape[0] - 1
        height = boxes.label.size[1] - 6
        match = {
            other: correlation(strip, digit_template(str(other), boxes.label.size, height))
            for other in range(1, n + 1)
        }
        assert max(match, key=match.get) == number
        assert match[number] > 0.7


@pytest.mark.parametrize("n", [1, 2, 9, 25])
def test_each_candidate_is_in_the_cell_of_its_number(n):
    colours = palette(n)
    sheet = build_sheet([Cell(plain(colour)) for colour in colours], plain((0, 0, 255)))

    for colour, boxes in zip(colours, sheet.layout.cells, strict=True):
        left, top, right, bottom = boxes.picture
        assert sheet.image.getpixel(((left + right) // 2, (top + bottom) // 2)) == colour


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (300, 300), (7, 5), (2000, 1500)])
def test_pictures_are_shown_whole(size):
    picture = plain((90, 90, 200), size)
    w, h = size
    corners = {(0, 0): (220, 40, 40), (1, 0): (40, 220, 40), (0, 1): (220, 220, 40), (1, 1): (40, 220, 220)}
    for (x, y), colour in corners.items():
        quarter = (x * w // 2, y * h // 2, (x + 1) * w // 2, (y + 1) * h // 2)
        picture.paste(colour, quarter)
    sheet = build_sheet([Cell(picture)] * 4, None)

    for boxes in sheet.layout.cells:
        area = np.asarray(sheet.image.crop(boxes.picture))
        rows = np.flatnonzero((area != 255).any(axis=(1, 2)))
        columns = np.flatnonzero((area != 255).any(axis=(0, 2)))
        shown = (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        side = sheet.layout.picture_side
        assert max(shown) == side
        assert min(shown) == pytest.approx(side * min(size) / max(size), abs=1)
        for (x, y), colour in corners.items():
            row = rows[-1 if y else 0] + (-2 if y else 2)
            column = columns[-1 if x else 0] + (-2 if x else 2)
            assert np.abs(area[row, column].astype(int) - colour).max() <= 16  # Lanczos rings


def test_the_query_is_framed_in_red_and_apart():
    sheet = build_sheet([Cell(plain((40, 130, 220)))] * 9, plain((130, 220, 40)))
    pixels = np.asarray(sheet.image)
    box = sheet.layout.query.frame

    red = (pixels == RED).all(axis=-1)
    assert red[box.top : box.bottom, box.left : box.left + 6].all()
    assert red[box.top : box.bottom, box.right - 6 : box.right].all()
    assert red[box.bottom - 6 : box.bottom, box.left : box.right].all()
    red[box.top : box.bottom, box.left : box.right] = False
    assert not red.any()
    nearest = min(
        max(cell.frame.left - box.right, cell.frame.top - box.bottom) for cell in sheet.layout.cells
    )
    between_cells = sheet.layout.cells[1].frame.left - sheet.layout.cells[0].frame.right
    assert nearest >= 3 * between_cells

    without = np.asarray(build_sheet([Cell(plain((40, 130, 220)))] * 9, None).image)
    assert not (without == RED).all(axis=-1).any()


def test_text_cells_and_unreadable_cells():
    sheet = build_sheet([Cell(text="a red chair " * 40), Cell(unreadable=True), Cell(plain((40, 130, 220)))])
    text, grey, _ = (np.asarray(sheet.image.crop(boxes.picture)) for boxes in sheet.layout.cells)

    assert {tuple(pixel) for pixel in np.unique(text.reshape(-1, 3), axis=0)} >= {(0, 0, 0), (255, 255, 255)}
    assert 0.02 < (text < 128).mean() < 0.3
    assert text[:, -2:].min() == 255  # wrapped before the edge
    assert ((grey == (128, 128, 128)).all(axis=-1)).mean() > 0.9


def test_texts_below_pictures_only_if_asked():
    cells = [Cell(plain((40, 130, 220)), text="blue"), Cell(plain((40, 130, 220)))]

    assert build_sheet(cells).layout.cells[0].text is None
    shown = build_sheet(cells, show_text=True)
    below = np.asarray(shown.image.crop(shown.layout.cells[0].text))
    assert (below < 100).any()
    assert (np.asarray(shown.image.crop(shown.layout.cells[1].text)) == 255).all()


def test_transparency_is_white_and_thin_pictures_do_not_vanish():
    glass = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    hair = plain((40, 130, 220), (1, 5000))
    sheet = build_sheet([Cell(glass), Cell(hair), Cell(hair.convert("P")), Cell(hair.convert("CMYK"))])

    assert (np.asarray(sheet.image.crop(sheet.layout.cells[0].picture)) == 255).all()
    for boxes in sheet.layout.cells[1:]:
        area = np.asarray(sheet.image.crop(boxes.picture))
        assert (area != 255).any(axis=-1).any(axis=1).all()


@pytest.mark.parametrize(
    ("n", "crops", "message"),
    [
        (0, 16, "holds 1 to 25 candidates, got 0"),
        (26, 16, "holds 1 to 25 candidates, got 26"),
        (1, 0, "num_crops must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_drawn(n, crops, message):
    with pytest.raises(ValueError, match=message):
        build_sheet([Cell(text="x")] * n, num_crops=crops)
