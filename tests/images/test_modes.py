"""Pillow images of every mode: read, checked, kept in a node, and refused with the documented error."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_picture, encoded

from llama_index_multimodal_rerank import ImageLoadError, ImageTextQuery, image_node, load_image
from llama_index_multimodal_rerank.images.access import ImageAccess

MODES = [
    *(
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "LA",
        "PA",
        "RGBX",
        "RGBa",
        "La",
    ),
    *("I;16", "I;16L", "I;16B", "I;16N"),
]


def in_mode(mode: str) -> Image.Image:
    picture = draw_picture(3)
    if mode in ("PA", "RGBa", "La"):
        return picture.convert({"PA": "P", "RGBa": "RGBA", "La": "LA"}[mode]).convert(mode)
    if mode == "LAB":
        rng = np.random.default_rng(0)
        return Image.frombytes("LAB", (64, 48), rng.integers(0, 256, 64 * 48 * 3, dtype=np.uint8).tobytes())
    if mode.startswith("I;16"):
        return (
            picture.convert("I").convert("I;16").convert(mode) if mode != "I;16" else picture.convert("I;16")
        )
    return picture.convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_is_kept_as_it_is_embedded(mode: str) -> None:
    image = in_mode(mode)
    assert image.mode == mode
    direct = load_image(image)
    kept = load_image(ImageAccess().read(image))
    assert (kept.size, kept.mode) == (direct.size, "I;16" if mode == "I;16L" else direct.mode)
    assert np.array_equal(np.asarray(kept.convert("RGB")), np.asarray(direct.convert("RGB")))
    assert np.asarray(kept.convert("RGB")).std() > 1
    node = image_node(image)
    assert node.image is not None
    assert base64.b64decode(node.image) == ImageAccess().read(image)
    assert ImageAccess().digest(image) == ImageAccess().digest(in_mode(mode))
    query = ImageTextQuery.from_json(ImageTextQuery("", image=image).to_json())
    assert load_image(query.image).size == (64, 48)


def test_lab_becomes_the_colour_it_stands_for() -> None:
    # Pure red is L* = 53 (of 100), a* = 80, b* = 67; the last two are kept with 128 added.
    lab = Image.new("LAB", (4, 4), (255 * 53 // 100, 128 + 80, 128 + 67))
    for source in (lab, encoded(lab, "TIFF")):
        red, green, blue = load_image(source).convert("RGB").getpixel((0, 0))  # type: ignore[misc]
        assert red > 240
        assert green < 40
        assert blue < 40


def test_a_jpeg_inside_a_tiff_is_not_encoded_again() -> None:
    cmyk = Image.open(BytesIO(encoded(draw_picture(0).convert("CMYK"), "TIFF", compression="jpeg")))
    kept = load_image(ImageAccess().read(cmyk))
    assert kept.tobytes() == cmyk.tobytes()


def closed() -> Image.Image:
    image = Image.new("RGB", (4, 4))
    image.close()
    return image


def closed_before_it_was_read(folder: Path) -> Image.Image:
    draw_picture(0).save(folder / "a.png")
    image = Image.open(folder / "a.png")
    image.close()
    return image


def cut_short() -> Image.Image:
    return Image.open(BytesIO(encoded(draw_picture(0, (200, 150)), "JPEG")[:-2000]))


@pytest.mark.parametrize("method", ["read", "load", "check", "digest"])
def test_pillow_images_that_cannot_be_read(method: str, tmp_path: Path) -> None:
    for image in (closed(), closed_before_it_was_read(tmp_path), cut_short(), Image.new("L", (1, 1001))):
        with pytest.raises(ImageLoadError):
            getattr(ImageAccess(), method)(image)
        with pytest.raises(ImageLoadError):
            ImageTextQuery("", image=image).to_json()


@pytest.mark.parametrize("method", ["read", "digest"])
def test_too_large_a_pillow_image_is_not_encoded(method: str) -> None:
    with pytest.raises(ImageLoadError, match="64 x 48 = 3072 pixels, more than the limit of 3071"):
        getattr(ImageAccess(max_pixels=64 * 48 - 1), method)(draw_picture(0))


def test_the_digest_tells_transparent_colours_apart() -> None:
    palettes = [draw_picture(0).convert("P") for _ in range(2)]
    palettes[1].info["transparency"] = 3
    assert len({ImageAccess().digest(image) for image in palettes}) == 2
