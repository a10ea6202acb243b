"""Decoded pictures as bytes between Ray's stages: whatever their mode, pixel by pixel, without pickles."""

from __future__ import annotations

import json
from typing import Any

from PIL import Image

PALETTED = ("L", "LA", "P", "PA")
"""Modes that Pillow gives a palette to."""


def pack_image(image: Image.Image) -> bytes:
    """Return a picture's pixels, palette and transparent value; nothing else that its file says."""
    transparency = image.info.get("transparency")
    header = {
        "mode": image.mode,
        "size": image.size,
        "palette": image.getpalette() if image.mode in PALETTED else None,
        "transparency": list(transparency) if isinstance(transparency, bytes) else transparency,
        "bytes": isinstance(transparency, bytes),
    }
    return json.dumps(header).encode() + b"\n" + image.tobytes()


def pack_file(data: bytes) -> bytes:
    """Return a picture's file, where that is smaller than its pixels."""
    return b"null\n" + data


def unpack(packed: bytes) -> Image.Image | bytes:
    """Return the picture, or its file."""
    line, _, data = packed.partition(b"\n")
    header: dict[str, Any] | None = json.loads(line)
    if header is None:
        return data
    image = Image.frombytes(header["mode"], tuple(header["size"]), data)
    if header["palette"]:
        image.putpalette(header["palette"])
    if (transparency := header["transparency"]) is not None:
        if isinstance(transparency, list):
            transparency = bytes(transparency) if header["bytes"] else tuple(transparency)
        image.info["transparency"] = transparency
    return image
