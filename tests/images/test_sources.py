"""images.py: every way in, every odd mode, every kind of bad input."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.drawing import bomb, draw_picture, encoded

from llama_index_multimodal_rerank.images.access import ImageAccess, load_image
from llama_index_multimodal_rerank.images.decoding import check_image
from llama_index_multimodal_rerank.images.sources import (
    ImageLoadError,
    ImageNotFoundError,
    as_path,
    describe_source,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def two_pixels() -> Image.Image:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    return image


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    path.write_bytes(encoded(two_pixels()))
    return path


def test_every_way_in_gives_the_same_pixels(png: Path) -> None:
    data = png.read_bytes()
    text = base64.b64encode(data).decode()
    sources = [
        str(png),
        png,
        png.as_uri(),
        data,
        bytearray(data),
        memoryview(data),
        BytesIO(data),
        text,
        f"data:image/png;base64,{text}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in data),
        two_pixels(),
    ]
    for source in sources:
        image = load_image(source)
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [RED, BLUE], describe_source(source)


def test_the_same_data_written_otherwise(png: Path, tmp_path: Path) -> None:
    """Schemes in capitals, white space in front, base64 of the alphabet of URLs, without padding."""
    data = encoded(draw_picture(1))
    (tmp_path / "drawn.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    url_safe = base64.urlsafe_b64encode(data).decode()
    assert "-" in url_safe
    assert "_" in url_safe
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for source in (
        f"DATA:image/png;BASE64,{text}",
        f" \n data:image/png;base64,{text}",
        f"data:image/png;base64 ,{url_safe}",
        f"data:image/png;charset=utf-8;base64,{lines}",
        "Data:," + "".join(f"%{byte:02X}" for byte in data),
        f"  {text}\n",
        url_safe,
        url_safe.rstrip("="),
        lines,
        (tmp_path / "drawn.png").as_uri().replace("file:", "FILE:"),
        (tmp_path / "drawn.png").as_uri().replace("file://", "file://localhost"),
        "  " + (tmp_path / "drawn.png").as_uri(),
    ):
        assert ImageAccess().read(source) == data, describe_source(source)


@pytest.mark.parametrize(
    "image_format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"]
)
def test_base64_of_every_format_is_told_from_a_path(image_format: str) -> None:
    data = encoded(draw_picture(1, (8, 8)), image_format)
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        assert as_path(text) is None
        assert ImageAccess().read(text) == data


def test_the_smallest_picture_is_no_path() -> None:
    text = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    assert load_image(text).size == (1, 1)


@pytest.mark.parametrize("url", ["HTTPS://127.0.0.1/a.png", " https://127.0.0.1/a.png"])
def test_an_address_is_an_address_however_it_is_written(url: str) -> None:
    with pytest.raises(ImageLoadError, match="unless allow_urls=True"):
        load_image(url)


def test_other_base64_is_no_picture() -> None:
    noise = base64.b64encode(b"no picture at all" * 1000).decode()
    with pytest.raises(ImageLoadError, match="not a picture in a known format"):
        load_image(noise)


def test_bytesio_is_read_whole_wherever_it_stands(png: Path) -> None:
    stream = BytesIO(png.read_bytes())
    stream.seek(10)
    assert load_image(stream).size == (2, 1)
    assert load_image(stream).size == (2, 1)


def test_a_file_whose_name_looks_like_base64_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "A" * 80
    (tmp_path / name).write_bytes(encoded(two_pixels()))
    monkeypatch.chdir(tmp_path)
    assert as_path(name) == Path(name)
    assert load_image(name).size == (2, 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_the_mode_of_the_file_is_kept(mode: str) -> None:
    image_format = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.new(mode, (3, 2))
    assert load_image(encoded(image, image_format)).mode == mode


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    for image_format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if image_format == "WEBP" else {}
        data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
        assert load_image(data).convert("RGB").getpixel((0, 0)) == RED, image_format


def test_exif_orientation_is_ignored_unless_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    data = encoded(two_pixels(), exif=exif)
    assert load_image(data).size == (2, 1)
    turned = load_image(data, apply_exif_orientation=True)
    assert turned.size == (1, 2)
    assert [turned.getpixel((0, y)) for y in (0, 1)] == [RED, BLUE]


def test_missing_file_is_both_our_error_and_pythons() -> None:
    with pytest.raises(ImageNotFoundError, match="no such file") as caught:
        load_image("/nowhere/leopard.jpg")
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ImageLoadError)
    assert str(caught.value) == "cannot read the picture '/nowhere/leopard.jpg': no such file"


def test_directory_and_pipe_are_refused_without_hanging(tmp_path: Path) -> None:
    with pytest.raises(ImageLoadError, match="not a regular file"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageLoadError, match="not a regular file"):
        load_image(tmp_path / "pipe.png")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageLoadError, match="0 bytes"):
        load_image(tmp_path / "empty.png")


def test_text_named_png(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageLoadError, match="not a picture in a known format"):
        load_image(tmp_path / "text.png")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_picture(image_format: str) -> None:
    data = encoded(draw_picture(1, (200, 150)), image_format)
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(ImageLoadError, match="damaged or cut short"):
        load_image(cut)
    with pytest.raises(ImageLoadError, match="damaged or cut short"):
        check_image(cut, name="cut")


def test_postscript_is_not_opened() -> None:
    # Pillow would hand it to Ghostscript.
    with pytest.raises(ImageLoadError, match="not a picture in a known format"):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")


@pytest.mark.parametrize("size", [(20_000, 5_000), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageLoadError, match=r"pixels, more than the limit|more pixels than the limit"):
        load_image(bomb(*size))


def test_limits_can_be_set(png: Path) -> None:
    with pytest.raises(ImageLoadError, match=r"2 x 1 = 2 pixels, more than the limit of 1"):
        load_image(png, max_pixels=1)
    with pytest.raises(ImageLoadError, match="more than the limit of 10"):
        load_image(png, max_bytes=10)
    with pytest.raises(ImageLoadError, match="more than the limit of 10"):
        load_image(png.read_bytes(), max_bytes=10)


@pytest.mark.parametrize("size", [(1, 1001), (2001, 2)])
def test_too_narrow_a_picture(size: tuple[int, int]) -> None:
    with pytest.raises(ImageLoadError, match="too narrow"):
        load_image(Image.new("L", size))
    with pytest.raises(ImageLoadError, match="too narrow"):
        check_image(encoded(Image.new("L", size)), name="narrow")
    assert load_image(Image.new("L", (1, 1000))).size == (1, 1000)


def test_not_a_source() -> None:
    with pytest.raises(TypeError, match="<int>"):
        load_image(7)  # type: ignore[arg-type]


def test_broken_data_uris_and_base64() -> None:
    with pytest.raises(ImageLoadError, match="no comma"):
        load_image("data:image/png;base64")
    with pytest.raises(ImageLoadError, match="base64"):
        load_image("data:image/png;base64,@@@@")


def test_digest_is_the_sha256_of_the_bytes(png: Path) -> None:
    expected = "sha256:" + hashlib.sha256(png.read_bytes()).hexdigest()
    assert ImageAccess().digest(png) == expected
    assert ImageAccess().digest(png.read_bytes()) == expected
    assert ImageAccess().digest(base64.b64encode(png.read_bytes()).decode()) == expected


def test_digest_tells_pil_images_apart() -> None:
    red, blue = Image.new("RGB", (4, 2), RED), Image.new("RGB", (4, 2), BLUE)
    digests = {ImageAccess().digest(image) for image in (red, blue, red.resize((2, 4)), red.convert("RGBA"))}
    assert len(digests) == 4
    same_indices = [Image.new("P", (1, 1)) for _ in range(2)]
    same_indices[0].putpalette(RED)
    same_indices[1].putpalette(BLUE)
    assert ImageAccess().digest(same_indices[0]) != ImageAccess().digest(same_indices[1])


@pytest.mark.parametrize("url", ["ftp://example.com/a.png", "javascript:alert(1)", "gopher://x"])
def test_other_schemes_are_file_names_that_do_not_exist(url: str) -> None:
    with pytest.raises(ImageNotFoundError):
        load_image(url, allow_urls=True)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_load_or_raise_the_documented_error(data: st.DataObject) -> None:
    image_format = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]))
    raw = bytearray(encoded(draw_picture(3, (24, 18)), image_format))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    try:
        image = load_image(bytes(raw), max_pixels=1_000_000)
    except ImageLoadError:
        return
    assert np.asarray(image.convert("RGB")).ndim == 3


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="ABCDabcd0123+/=", min_size=60), st.binary()))
def test_any_string_or_bytes_load_or_raise_the_documented_error(source: str | bytes) -> None:
    with pytest.raises(ImageLoadError):
        ImageAccess().read(source) and load_image(source)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, llama_index_multimodal_rerank as m\n"
        "heavy = {'torch', 'transformers', 'FlagEmbedding', 'timm', 'PIL', 'pymilvus', 'llama_index.core'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "m.ImageTextQuery, m.VisualizedBGEEmbedding, m.load_image_nodes\n"
        "m.milvus_store, m.BGEM3SparseEmbedding\n"
        "heavy = {'torch', 'transformers', 'FlagEmbedding', 'timm'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
