"""Small files that would take minutes or gigabytes are refused; decoding takes what the table says."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from support.drawing import draw_picture, encoded
from support.picture_bombs import BOMBS, noise, scans, tiff_of_one_tile

from llama_index_multimodal_rerank import ImageLoadError, load_image
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.images.decoding import IMAGE_FORMATS, MAX_IMAGE_PIXELS
from llama_index_multimodal_rerank.images.memory import BYTES_PER_PIXEL, MAX_DECODING_BYTES, check_memory
from llama_index_multimodal_rerank.images.structure import check_structure

PEAK = """
import resource, sys
from pathlib import Path
from PIL import Image
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.images.decoding import IMAGE_FORMATS, OPTIONAL_FORMATS
Image.init()
access = ImageAccess(formats=(*IMAGE_FORMATS, *OPTIONAL_FORMATS))
data = Path(sys.argv[1]).read_bytes()
access.load(Path(sys.argv[2]).read_bytes())  # what the decoder needs in any case
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
image = access.load(data)
print((peak() - before) / (image.width * image.height))
"""


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str) -> None:
    data = BOMBS[name](2 << 20 if "PPM" not in name else 9 << 20)
    access = ImageAccess()
    for method in (access.load, access.check):
        with pytest.raises(ImageLoadError) as refused:
            method(data)
        assert "damaged" not in refused.value.reason  # refused by a limit, not by chance


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize(
    ("image_format", "mode", "options", "expected"),
    [
        ("JPEG", "RGB", {}, 4),
        ("JPEG", "CMYK", {"progressive": True}, BYTES_PER_PIXEL["progressive"]),
        ("PNG", "RGBA", {"compress_level": 1}, 4),
        ("WEBP", "RGBA", {"method": 0}, BYTES_PER_PIXEL["WEBP"]),
        ("WEBP", "RGB", {"lossless": True, "quality": 0, "method": 0}, BYTES_PER_PIXEL["WEBP"]),
        ("AVIF", "RGBA", {"speed": 10, "subsampling": "4:4:4"}, BYTES_PER_PIXEL["AVIF"]),
        ("JPEG2000", "RGBA", {}, BYTES_PER_PIXEL["JPEG2000"]),
        ("GIF", "P", {}, 4),
        ("TIFF", "F", {"compression": "tiff_lzw"}, 4),
        ("BMP", "RGB", {}, 4),
        ("PPM", "RGB", {}, 4),
    ],
)
def test_decoding_takes_no_more_memory_than_the_table_says(
    tmp_path: Path, image_format: str, mode: str, options: dict[str, object], expected: float
) -> None:
    for file, side in (("large", 2400), ("small", 32)):
        (tmp_path / file).write_bytes(encoded(noise(side, mode), image_format, **options))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "large"), str(tmp_path / "small")],
        capture_output=True,
        text=True,
        check=True,
    )
    # 10 MB more are what allocators keep and threads need.
    assert float(done.stdout) <= expected + 10e6 / 2400**2


def test_the_limit_is_one_gibibyte_for_every_format() -> None:
    assert MAX_DECODING_BYTES == 2**30
    assert MAX_IMAGE_PIXELS * BYTES_PER_PIXEL["progressive"] <= MAX_DECODING_BYTES
    for image_format, most in {"WEBP": 63_161_283, "AVIF": 44_739_242, "JPEG2000": 42_949_672}.items():
        image = Image.new("1", (1, 1))
        image.format, image.tile = image_format, []  # type: ignore[attr-defined]
        image._size = (most, 1)
        check_memory(image, "a", MAX_IMAGE_PIXELS)  # type: ignore[arg-type]
        image._size = (most + 1, 1)
        with pytest.raises(ImageLoadError, match="bytes of memory, more than the limit of 1073741824"):
            check_memory(image, "a", MAX_IMAGE_PIXELS)  # type: ignore[arg-type]
        check_memory(image, "a", 3 * MAX_IMAGE_PIXELS)  # type: ignore[arg-type]


def test_ordinary_files_with_many_parts_are_read() -> None:
    assert load_image(scans(64, 20)).size == (64, 64)
    small = encoded(noise(256, "RGB"), "JPEG", progressive=True, icc_profile=b"x" * 200_000, comment=b"c")
    assert load_image(small).size == (256, 256)
    tiled = encoded(noise(64, "L"), "TIFF", tiffinfo={322: 512, 323: 512}, compression="tiff_adobe_deflate")
    assert load_image(tiled).size == (64, 64)
    with pytest.raises(ImageLoadError, match="damaged"):  # a tile of 4,000 for a small picture is allowed
        load_image(tiff_of_one_tile(4000, 1))
    for header in (b"P6 # c\n#d\n 1\t1 255\n", b"P6\n1 1\n255\n"):
        assert load_image(header + b"abc").getpixel((0, 0)) == (97, 98, 99)
    assert load_image(b"P4 8 1\n\xaa").size == (8, 1)
    assert load_image(b"P2 2 1 3 0 3").getpixel((1, 0)) == 255
    frames = [draw_picture(i) for i in range(3)]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"c" * 60_000)
    assert load_image(animated).size == (64, 48)


def test_formats_that_few_need_are_off_until_named() -> None:
    data = encoded(draw_picture(0), "JPEG2000")
    with pytest.raises(ImageLoadError, match="such as JPEG2000, make a PNG or JPEG"):
        load_image(data)
    assert load_image(data, formats=[*IMAGE_FORMATS, "JPEG2000"]).size == (64, 48)
    assert ImageAccess(formats=["JPEG2000"]).check(data).info.mimetype == "image/jp2"
    with pytest.raises(ImageLoadError, match=r"known format \(JPEG\)"):
        load_image(encoded(draw_picture(0)), formats=["JPEG"])
    for formats in (["EPS"], ["jpeg"], "JPEG"):
        with pytest.raises(ValueError, match="formats must be some of"):
            load_image(data, formats=formats)


def sequential(*parts: bytes) -> bytes:
    """A JPEG of one scan that holds all components, with parts put in front of its end."""
    buffer = BytesIO()
    noise(64, "RGB").save(buffer, "JPEG")
    return buffer.getvalue()[:-2] + b"".join(parts) + b"\xff\xd9"


def test_a_second_scan_of_a_sequential_jpeg_is_the_decoders_error() -> None:
    """Which is why nobody looks for one."""
    whole = sequential()
    scan = whole[whole.index(b"\xff\xda") : -2]
    assert load_image(whole).size == (64, 64)
    with pytest.raises(ImageLoadError, match="damaged or cut short"):
        load_image(sequential(scan))


def test_scans_are_counted_unless_the_only_frame_is_sequential_and_the_scan_has_all_of_it() -> None:
    whole = sequential()
    frame, scan = whole.index(b"\xff\xc0"), whole.index(b"\xff\xda")
    many = whole[scan:-2] * 101
    in_parts = bytearray(whole[:-2] + many)
    in_parts[scan + 4] = 1  # one component of three
    progressive = bytearray(whole[:-2] + many)
    progressive[frame + 1] = 0xC2
    two_frames = whole[:frame] + whole[frame:scan] + whole[frame:-2] + many
    for data in (bytes(in_parts), bytes(progressive), two_frames):
        with pytest.raises(ImageLoadError, match="more than 100 scans"):
            check_structure(data, "x")
    check_structure(whole[:-2] + many, "x")
