"""How many parts a picture file has, counted before a decoder walks through them.

Decoders read headers part by part, in Python or with work that grows with each part: a file of 10 MB made of
empty ones takes minutes, or gigabytes. Here the parts are counted, cheaply, and a file with more of them than
any camera or program writes is refused.
"""

from __future__ import annotations

import re
import struct

from .errors import ImageLoadError

MAX_PARTS = 100_000
"""Most PNG chunks, GIF blocks, TIFF strips or tiles."""

MAX_JPEG_SEGMENTS = 10_000
"""Most segments in front of a JPEG's picture."""

MAX_EXIF_SEGMENTS = 100
"""Most EXIF segments of a JPEG; joined, in quadratic time, by the decoder."""

MAX_JPEG_SCANS = 100
"""Most scans of a progressive JPEG. Programs write about ten."""

MAX_SCANNED_PIXELS = 1_500_000_000
"""Largest product of a JPEG's pixels and scans: each scan visits all pixels."""

_JUNK = 65_536
_LONGEST_PPM_HEADER = 4096
# A literal byte at its start is looked for a hundred times as fast as a set or a repetition.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_SEQUENTIAL = frozenset({0xC0, 0xC1})
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_PPM_GAP, _PPM_WORD = rb"(?:\s|#[^\r\n]*[\r\n])+", rb"[^\s#]+"
# P1 and P4 have no highest value.
_PPM_HEADER = re.compile(rb"P(?:[14]|\w+" + _PPM_GAP + _PPM_WORD + rb")" + (_PPM_GAP + _PPM_WORD) * 2)
_TIFF_OPAQUE = frozenset({1, 2, 6, 7})  # types that the decoder keeps as bytes, however many


def check_structure(data: bytes, name: str) -> None:
    """Refuse a file of too many parts. What is no picture, or damaged, is left to the decoder.

    Args:
        data: the encoded picture.
        name: stands for the picture in errors.

    Raises:
        ImageLoadError: more parts than the limits of this module.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            _check_jpeg(data, name)
        elif data.startswith(b"\x89PNG"):
            _check_png(data, name)
        elif data.startswith(b"GIF8"):
            _check_gif(data, name)
        elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            _check_tiff(data, name)
        elif data.startswith(b"P") and not _PPM_HEADER.match(data[:_LONGEST_PPM_HEADER]):
            raise _refused(name, f"its header is longer than {_LONGEST_PPM_HEADER} bytes, or none")
    except (IndexError, struct.error):  # it ends early
        return


def _refused(name: str, reason: str) -> ImageLoadError:
    return ImageLoadError(name, f"{reason}; save it again with another program")


def _check_jpeg(data: bytes, name: str) -> None:
    place, junk, segments, exif, scans, pixels = 2, 0, 0, 0, 0, 0
    frames: list[tuple[int, int]] = []  # kind and number of components
    while scans == 0:  # one segment after the other, up to the first scan
        start = data.find(b"\xff", place)
        if start < 0:
            return
        marker = start + 1
        while data[marker] == 0xFF and junk <= _JUNK:
            marker += 1
            junk += 1
        junk += start - place
        kind, place = data[marker], marker + 1
        segments += 1
        if kind == 0 or kind in _JPEG_BARE:
            junk += 2
        elif kind != 0xD8:
            (length,) = struct.unpack_from(">H", data, place)
            exif += kind == 0xE1 and data[place + 2 : place + 6] == b"Exif"
            if kind in _JPEG_FRAMES:
                height, width = struct.unpack_from(">HH", data, place + 3)
                pixels = width * height
                frames.append((kind, data[place + 7]))
            components = data[place + 2]  # of a scan
            place += length
            scans = int(kind == 0xDA)
        if segments > MAX_JPEG_SEGMENTS or exif > MAX_EXIF_SEGMENTS or junk > _JUNK:
            raise _refused(
                name,
                f"its header has more than {MAX_JPEG_SEGMENTS} segments, {MAX_EXIF_SEGMENTS} EXIF segments "
                f"or {_JUNK} bytes between them",
            )
    if len(frames) == 1 and frames[0][0] in _JPEG_SEQUENTIAL and frames[0][1] == components > 0:
        # All there is, in one scan: the decoder visits each pixel once, and a second scan is an error to it.
        # Looking for one would take longer than everything else here.
        return
    segments = 0
    while (found := _JPEG_MARKER.search(data, place)) is not None:
        kind, place = data[found.end() - 1], found.end()
        if kind == 0xD9:
            return
        scans += kind == 0xDA
        segments += 1
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS or scans * pixels > MAX_SCANNED_PIXELS:
            raise _refused(
                name,
                f"it has more than {MAX_JPEG_SCANS} scans, {MAX_JPEG_SEGMENTS} segments between them, or "
                f"{MAX_SCANNED_PIXELS} pixels in all scans",
            )
        if kind not in _JPEG_BARE and place + 2 <= len(data):
            place += struct.unpack_from(">H", data, place)[0]


def _check_png(data: bytes, name: str) -> None:
    place = 8
    for _ in range(MAX_PARTS):
        (length,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"IEND":
            return
        place += 12 + length
    raise _refused(name, f"it has more than {MAX_PARTS} chunks")


def _check_gif(data: bytes, name: str) -> None:
    place = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    in_block = False
    for _ in range(MAX_PARTS):
        byte = data[place]
        if in_block:
            in_block, place = byte != 0, place + 1 + byte
        elif byte == 0x21:
            in_block, place = True, place + 2
        elif byte in (0x2C, 0x3B):  # the first picture, or the end
            return
        else:
            place += 1
    raise _refused(name, f"it has more than {MAX_PARTS} blocks in front of its picture")


def _check_tiff(data: bytes, name: str) -> None:
    order = "<" if data[:1] == b"I" else ">"
    big = 43 in data[2:4]
    start, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    (place,) = struct.unpack_from(order + start, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, place)
    place += struct.calcsize(order + count)
    if entries > MAX_PARTS:
        raise _refused(name, f"its directory has {entries} entries, more than {MAX_PARTS}")
    for _ in range(entries):
        _, kind, values = struct.unpack_from(order + entry, data, place)
        if kind not in _TIFF_OPAQUE and values > MAX_PARTS:
            raise _refused(name, f"its directory has a table of {values} numbers, more than {MAX_PARTS}")
        place += 20 if big else 12
