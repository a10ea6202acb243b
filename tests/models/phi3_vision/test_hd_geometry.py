from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import phi3_vision_golden as golden

from llama_index_multimodal_rerank.models.hd_geometry import hd_size, num_image_tokens, tile_grid


def recorded_sizes() -> list[list[int]]:
    recorded = golden.read_json("processor_cases.json")
    assert recorded["hd_sizes_columns"] == [
        "width",
        "height",
        "num_crops",
        "resized_width",
        "resized_height",
        "padded_width",
        "padded_height",
        "num_img_tokens",
    ]
    return recorded["hd_sizes"]


def test_every_recorded_size() -> None:
    rows = [row for row in recorded_sizes() if 0 not in row]
    found = []
    for width, height, num_crops, *_ in rows:
        size = hd_size(width, height, num_crops)
        tokens = num_image_tokens(size.padded_height, size.padded_width)
        found.append([width, height, num_crops, *size, tokens])
    assert rows
    assert found == rows


@pytest.mark.parametrize("row", [row for row in recorded_sizes() if 0 in row])
def test_sizes_that_vanish_in_the_reference_are_refused(row: list[int]) -> None:
    with pytest.raises(ValueError, match=f"the picture is {row[0]}x{row[1]} pixels"):
        hd_size(*row[:3])


sides = st.integers(1, 5000)


@given(width=sides, height=sides, num_crops=st.integers(1, 64))
def test_grid_is_the_largest_that_fits(width: int, height: int, num_crops: int) -> None:
    ratio = max(width, height) / min(width, height)
    try:
        size = hd_size(width, height, num_crops)
    except ValueError:
        assert ratio > 336
        return
    rows, columns = tile_grid(size.padded_height, size.padded_width)
    assert 1 <= rows * columns <= num_crops
    longest = max(rows, columns)
    assert (longest + 1) * math.ceil((longest + 1) / ratio) > num_crops
    assert 0 <= size.padded_width - size.resized_width < 336
    assert 0 <= size.padded_height - size.resized_height < 336


@given(width=sides, height=sides, num_crops=st.integers(1, 64))
def test_tall_mirrors_wide(width: int, height: int, num_crops: int) -> None:
    try:
        wide, tall = hd_size(width, height, num_crops), hd_size(height, width, num_crops)
    except ValueError:
        return
    assert tall == (wide.resized_height, wide.resized_width, wide.padded_height, wide.padded_width)


@pytest.mark.parametrize("num_crops", [0, -1, 1.5, True, None, "4"])
def test_num_crops_must_be_a_whole_number_above_zero(num_crops: object) -> None:
    with pytest.raises(ValueError, match=r"num_crops is .*whole number of at least 1"):
        hd_size(10, 10, num_crops)  # type: ignore[arg-type]


def test_too_thin_a_picture_names_its_size() -> None:
    # With one crop the long side becomes 336 pixels, so an aspect ratio of 336 still leaves one row.
    assert hd_size(336, 1, 1) == (336, 1, 336, 336)
    with pytest.raises(ValueError, match=r"337x1 pixels.*aspect ratio of 336:1"):
        hd_size(337, 1, 1)
    with pytest.raises(ValueError, match="0x5 pixels"):
        hd_size(0, 5, 4)


@pytest.mark.parametrize("size", [(0, 336), (336, 335), (-336, 336)])
def test_token_count_needs_padded_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 336"):
        num_image_tokens(*size)
