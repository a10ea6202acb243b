"""Features are found by the picture's object, or by its pixels where equal pictures may come."""

from __future__ import annotations

import torch
from PIL import Image

from llama_index_multimodal_rerank.vlm.recent_features import FEATURES_KEPT, RecentFeatures


def features(number):
    return torch.full((1, 1), float(number)), [336, 336]


def found(recent, image, *, num_crops=1, by_content=False):
    result = recent.find(image, num_crops, by_content=by_content)
    return None if result is None else result[0].item()


def test_by_object_and_by_content():
    recent = RecentFeatures()
    sheet, query = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    recent.keep(sheet, 1, features(1), by_content=False)
    recent.keep(query, 1, features(2), by_content=True)

    assert found(recent, sheet) == found(recent, sheet, by_content=True) == 1
    assert found(recent, sheet.copy(), by_content=True) is None
    assert found(recent, query.copy(), by_content=True) == 2
    assert found(recent, query, num_crops=4, by_content=True) is None


def test_a_sheet_that_was_drawn_on_is_another_one():
    recent = RecentFeatures()
    sheet = Image.new("RGB", (9, 9), "red")
    recent.keep(sheet, 1, features(1), by_content=False)
    sheet.putpixel((0, 0), (255, 0, 1))
    assert found(recent, sheet) is None


def test_pixels_that_were_copied_out_already_tell_the_same():
    recent = RecentFeatures()
    sheet = Image.effect_noise((9, 9), 50).convert("RGB")
    recent.keep(sheet, 1, features(1), by_content=False, pixels=sheet.tobytes())
    assert found(recent, sheet) == 1
    sheet.putpixel((0, 0), (255, 0, 1))
    assert found(recent, sheet) is None


def test_a_sheet_that_is_gone_makes_room():
    recent = RecentFeatures()
    query = Image.new("RGB", (9, 9), "blue")
    recent.keep(query, 1, features(1), by_content=True)
    for number in range(2 * FEATURES_KEPT):
        recent.keep(Image.new("RGB", (9, 9), (number, 0, 0)), 1, features(number), by_content=False)
    assert found(recent, query) == 1
    assert len(recent._kept) <= 2


def test_as_many_are_kept_as_is_said_and_the_last_used_the_longest():
    recent = RecentFeatures()
    sheets = [Image.new("RGB", (9, 9), (i, 0, 0)) for i in range(FEATURES_KEPT + 1)]
    for number, sheet in enumerate(sheets):
        recent.keep(sheet, 1, features(number), by_content=False)
        assert found(recent, sheets[0]) == 0
    assert [found(recent, sheet) for sheet in sheets[:3]] == [0, None, 2]
