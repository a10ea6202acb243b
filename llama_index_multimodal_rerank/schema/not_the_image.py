"""Texts that stand where a picture should: its bytes, decoded as if they were UTF-8, or its metadata alone.

The former is what readers make of a picture that they do not know: what is no UTF-8 is left out, or
replaced by a sign. The latter is what an index embeds of an ``ImageNode`` that is not one of ours.
"""

from __future__ import annotations

import re

_BEGINS_AS_IMAGE = re.compile(
    r"(?:\A|\n\n)\ufffd{0,4}(?:"
    r"PNG\r?\n\x1a\r?\n"
    r"|\0.{0,4}(?:JFIF|Exif)\0|\0.{0,3}C\0\ufffd?[\0-\x20]"  # JPEG
    r"|GIF8[79]a"
    r"|RIFF.{0,4}WEBPVP8"
    r"|BM.{0,12}\0"
    r"|II[*+]\0|MM\0[*+]"  # TIFF
    r"|\0\0?.{0,2}ftyp(?:avi[fs]|mi[af]1|msf1|he[iv][cxms])"  # AVIF, HEIC
    r"|\0\0\0\x0cjP  )",  # JPEG 2000
    re.DOTALL,
)


def is_decoded_image(text: str) -> bool:
    """Tell whether a text, or the first paragraph after its metadata, is made of a picture's bytes."""
    return "\0" in text and _BEGINS_AS_IMAGE.search(text[:10_000]) is not None


_FILE_KEYS = ("file_path", "file_name", "image_path", "image_url")
_IMAGE_ENDING = re.compile(r"\.(?:jpe?g|jfif|png|webp|gif|tiff?|bmp|avif|hei[cf])\s*\Z", re.IGNORECASE)


def is_image_metadata(text: str) -> bool:
    """Tell whether a text is nothing but the metadata of a picture's file, ``key: value`` in each line."""
    if ": " not in text:
        return False
    lines = [line.partition(": ") for line in text.splitlines()]
    return all(colon for _, colon, _ in lines) and any(
        key in _FILE_KEYS and _IMAGE_ENDING.search(value) for key, _, value in lines
    )
