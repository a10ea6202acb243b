"""Pictures as people see them: deep grey scaled, broken EXIF blocks ignored; vectors stay the reference's."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import ImageNode, NodeWithScore
from PIL import Image
from support.drawing import draw_picture, encoded

from llama_index_multimodal_rerank import ImageTextQuery, VisualizedBGEEmbedding, load_image
from llama_index_multimodal_rerank.images.viewing import to_screen_depth, turn_upright
from llama_index_multimodal_rerank.reranking.candidates import Candidate, Candidates, read_query

GREY = np.asarray(draw_picture(5).convert("L"))


def read_candidates(nodes: list[NodeWithScore]) -> list[Candidate]:
    return Candidates(nodes).show(range(len(nodes)), str)


def deep(name: str) -> bytes:
    """The same grey picture in some depth, as a file."""
    assert GREY.max() > 200
    values: dict[str, tuple[Any, str]] = {
        "16-bit PNG": ((GREY.astype(np.uint16) * 257), "PNG"),
        "16-bit TIFF": ((GREY.astype(np.uint16) * 257), "TIFF"),
        "12-bit": (np.rint(GREY * (4095 / 255)).astype(np.uint16), "PNG"),
        "8 bits in 16": (GREY.astype(np.uint16), "PNG"),
        "int32": (GREY.astype(np.int32), "TIFF"),
        "int32 of 16 bits": (GREY.astype(np.int32) * 257, "TIFF"),
        "float 0-1": ((GREY / 255).astype(np.float32), "TIFF"),
        "float 0-255": (GREY.astype(np.float32), "TIFF"),
        "float with gaps": (np.where(np.arange(64) == 3, np.nan, GREY / 255).astype(np.float32), "TIFF"),
    }
    array, image_format = values[name]
    return encoded(Image.fromarray(array), image_format)


DEEP = ("16-bit PNG", "16-bit TIFF", "12-bit", "8 bits in 16", "int32", "int32 of 16 bits", "float 0-1")


@pytest.mark.parametrize("name", [*DEEP, "float 0-255", "float with gaps"])
def test_the_reranker_sees_deep_grey_as_it_looks(name: str) -> None:
    data = deep(name)
    (candidate,) = read_candidates(
        [NodeWithScore(node=ImageNode(image=base64.b64encode(data).decode()), score=1.0)]
    )
    query = read_query(ImageTextQuery("", image=data))
    expected = np.array(GREY)
    if "gaps" in name:
        expected[:, 3] = 0
    for seen in (candidate.cell.picture, query.picture):
        assert seen is not None
        grey = np.asarray(seen.convert("L"), dtype=int)
        assert grey.std() > 20
        assert np.abs(grey - expected).max() <= 1


def test_other_ranges() -> None:
    def shown(values: list[float], mode: str = "F") -> list[int]:
        array = np.array([values], dtype={"F": np.float32, "I": np.int32}[mode])
        image = to_screen_depth(Image.fromarray(array))
        assert image.mode == "L"
        return np.asarray(image)[0].tolist()

    assert shown([0, 0, 0]) == [0, 0, 0]
    assert shown([-1, 0, 1]) == [0, 128, 255]  # 127.5, to even
    assert shown([-5, -5]) == [0, 0]
    assert shown([0, 1, 10], "I") == [0, 26, 255]  # class numbers; 25.5, to even
    assert shown([0, 1_000_000], "I") == [0, 255]
    assert shown([np.nan, np.inf, 1]) == [0, 0, 255]
    rgb = draw_picture(0)
    assert to_screen_depth(rgb) is rgb


def test_vectors_of_deep_grey_stay_as_the_reference_makes_them(embed_model: VisualizedBGEEmbedding) -> None:
    assert load_image(deep("16-bit PNG")).mode == "I;16"
    clipped = np.minimum(GREY.astype(int) * 257, 255).astype(np.uint8)
    assert embed_model.get_image_embedding(deep("16-bit PNG")) != embed_model.get_image_embedding(
        encoded(Image.fromarray(GREY))
    )
    assert np.asarray(load_image(deep("16-bit PNG")).convert("RGB"))[..., 0].tolist() == clipped.tolist()


def with_exif(block: bytes) -> bytes:
    png = encoded(draw_picture(1))
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    return png[:33] + chunk + png[33:]


BROKEN = {
    "no TIFF": b"no EXIF at all",
    "cut": b"II*\0\x08\0\0\0\x05\0\x12",
    "far": b"MM\0*\xff\xff\xff\xff",
    "orientation 99": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
    "orientation of 4 numbers": b"II*\0\x08\0\0\0\x01\0\x12\x01\x01\0\x04\0\0\0\x06\x06\x06\x06\0\0\0\0",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_broken_exif_block_leaves_the_picture_sound(name: str) -> None:
    data = with_exif(BROKEN[name])
    for image_format in ("PNG", "JPEG", "WEBP"):
        if image_format != "PNG":
            data = encoded(draw_picture(1), image_format, exif=b"Exif\0\0" + BROKEN[name])
        turned = load_image(data, apply_exif_orientation=True)
        assert np.array_equal(np.asarray(turned), np.asarray(load_image(data)))
        (candidate,) = read_candidates(
            [NodeWithScore(node=ImageNode(image=base64.b64encode(data).decode()), score=1.0)]
        )
        assert candidate.problem is None
        assert candidate.cell.picture is not None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_once(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = draw_picture(1)
    undo = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.rotate(-90, expand=True),
    }
    data = encoded(undo[orientation](upright), exif=exif)
    turned = load_image(data, apply_exif_orientation=True)
    assert turned.tobytes() == upright.tobytes()
    assert turn_upright(turned).tobytes() == upright.tobytes()
    assert load_image(turned, apply_exif_orientation=True).tobytes() == upright.tobytes()


def test_a_block_that_is_broken_elsewhere_still_turns() -> None:
    """A readable orientation beside a value that cannot be written again."""
    entries = struct.pack("<HHI4s", 0x0112, 3, 1, b"\x06\0\0\0") + struct.pack(
        "<HHI4s", 0x8769, 9, 1, b"\xff" * 4
    )
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
    turned = load_image(with_exif(block), apply_exif_orientation=True)
    assert turned.size == (48, 64)


def test_16_bit_grey_with_a_transparent_value() -> None:
    png = encoded(Image.fromarray(GREY.astype(np.uint16) * 257))
    body = struct.pack(">H", 257)
    chunk = struct.pack(">I", 2) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    data = png[:33] + chunk + png[33:]
    (candidate,) = read_candidates(
        [NodeWithScore(node=ImageNode(image=base64.b64encode(data).decode()), score=1.0)]
    )
    assert candidate.problem is None
    assert candidate.cell.picture is not None
    assert np.abs(np.asarray(candidate.cell.picture.convert("L"), dtype=int) - GREY).max() <= 1
