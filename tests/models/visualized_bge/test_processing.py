"""Crops beyond the golden pictures, and token ids."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llama_index_multimodal_rerank.models.fast_tokenizer import truncate
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE
from llama_index_multimodal_rerank.models.visualized_bge.processing import (
    crop_image,
    normalize_crops,
)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"]),
)
def test_any_size_and_mode_gives_a_crop(width: int, height: int, mode: str) -> None:
    crop = crop_image(Image.new(mode, (width, height)))
    assert crop.shape == (224, 224, 3)
    assert crop.dtype == np.uint8


def test_centre_is_cut_out_without_scaling_where_the_side_fits() -> None:
    columns = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (224, 256, 3))
    crop = crop_image(Image.fromarray(np.ascontiguousarray(columns)))
    np.testing.assert_array_equal(crop[0, :, 0], np.arange(16, 240))


@pytest.mark.parametrize(("extra", "left"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_pixels_round_to_the_even_neighbour(extra: int, left: int) -> None:
    columns = np.broadcast_to(np.arange(224 + extra, dtype=np.uint8)[None, :, None], (224, 224 + extra, 3))
    assert crop_image(Image.fromarray(np.ascontiguousarray(columns)))[0, 0, 0] == left


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_empty_image(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"The image is empty: {size[0]} x {size[1]} pixels"):
        crop_image(Image.new("RGB", size))


@pytest.mark.parametrize("size", [(1, 1001), (2003, 2)])
def test_image_far_too_narrow(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} pixels is too narrow.*Crop it first"):
        crop_image(Image.new("RGB", size))
    assert crop_image(Image.new("RGB", (1, 1000))).shape == (224, 224, 3)


def test_the_callers_image_is_left_alone() -> None:
    image = Image.new("P", (300, 200))
    image.info["transparency"] = b"\x00\xff"
    before = image.copy()
    crop_image(image)
    assert image.size == (300, 200)
    assert image.mode == "P"
    assert image.info == before.info
    assert image.tobytes() == before.tobytes()


def test_one_unread_image_in_many_threads() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    expected = crop_image(Image.fromarray(pixels))
    for _ in range(5):
        image = Image.open(io.BytesIO(file.getvalue()))
        crops: list[np.ndarray | Exception] = []
        barrier = threading.Barrier(8)

        def work(
            image: Image.Image = image,
            crops: list[np.ndarray | Exception] = crops,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            try:
                crops.append(crop_image(image))
            except Exception as error:
                crops.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(crops) == 8
        for crop in crops:
            assert isinstance(crop, np.ndarray), crop
            np.testing.assert_array_equal(crop, expected)


def test_normalisation_by_hand() -> None:
    crops = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    crops[1, 2, 3] = torch.tensor([255, 0, 51])
    pixels = normalize_crops(crops)
    assert pixels.shape == (2, 3, 4, 4)
    assert pixels.dtype == torch.float32
    expected = [
        (1 - 0.48145466) / 0.26862954,
        -0.4578275 / 0.26130258,
        (0.2 - 0.40821073) / 0.27577711,
    ]
    torch.testing.assert_close(pixels[1, :, 2, 3], torch.tensor(expected), rtol=0, atol=1e-6)


@given(st.lists(st.integers(4, 600), min_size=2, max_size=40), st.integers(2, 50))
def test_truncation_keeps_both_special_tokens(ids: list[int], limit: int) -> None:
    cut = truncate(np.asarray(ids), limit).tolist()
    assert len(cut) == min(len(ids), limit)
    assert (cut[0], cut[-1]) == (ids[0], ids[-1])
    assert cut[:-1] == ids[: len(cut) - 1]


def test_padding(tiny: VisualizedBGE) -> None:
    pad = tiny.model.config.text.pad_token_id
    ids, mask = tiny.tokenizer.pad([np.array([2, 7, 3]), np.array([2, 3])])
    assert ids.tolist() == [[2, 7, 3], [2, 3, pad]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_settings_of_a_shared_tokenizer_do_not_matter(tiny: VisualizedBGE) -> None:
    texts = ["a red cat", "the green parrot is under the tree, beside the river"]
    expected = [ids.tolist() for ids in tiny.tokenizer(texts)]
    assert len(set(map(len, expected))) == 2
    tiny.tokenizer.tokenizer(texts, padding=True, truncation=True, max_length=4)
    assert [ids.tolist() for ids in tiny.tokenizer(texts)] == expected
