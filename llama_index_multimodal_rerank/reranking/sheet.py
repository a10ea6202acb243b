"""The numbered sheet of candidates with the query picture: one picture for the model to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ..images.decoding import fitted_size
from .sheet_layout import BORDER, LABEL_PADDING, QUERY_BORDER, Box, CellBoxes, SheetLayout, plan_sheet

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, int, int]

PAGE: Colour = (255, 255, 255)
INK: Colour = (0, 0, 0)
UNREADABLE: Colour = (128, 128, 128)
QUERY: Colour = (170, 0, 0)
QUERY_MARK = "QUERY"


@dataclass(frozen=True)
class Cell:
    """What one candidate shows.

    Attributes:
        picture: its picture; None makes a text cell.
        text: its text: below the picture if the sheet has room for text, in place of it without one.
        unreadable: the candidate has a picture that cannot be read; its cell is grey.
    """

    picture: Image | None = None
    text: str = ""
    unreadable: bool = False


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet.

    Attributes:
        image: RGB picture; its sides are multiples of 336 pixels, and Phi-3 Vision with the same
            ``num_crops`` sees it pixel by pixel.
        layout: where its parts lie. Candidate i is labelled i + 1.
    """

    image: Image
    layout: SheetLayout


def build_sheet(
    cells: Sequence[Cell],
    query: Image | None = None,
    *,
    num_crops: int = 16,
    show_text: bool = False,
) -> Sheet:
    """Draw candidates in numbered cells, and the query picture apart from them in a red frame.

    Pictures are fitted whole into squares of equal size, never cropped. Transparency is shown on white.

    Args:
        cells: 1 to 25 candidates; the first is labelled 1.
        query: the query picture, if there is one.
        num_crops: tiles of 336 pixels that the model looks at; the sheet is made for them.
        show_text: write candidates' texts below their pictures.

    Raises:
        ValueError: no candidate, more than 25, or too many for ``num_crops``.
    """
    from PIL import Image as PILImage
    from PIL import ImageDraw

    text = show_text and any(cell.picture is not None and cell.text.strip() for cell in cells)
    layout = plan_sheet(len(cells), query=query is not None, num_crops=num_crops, text=text)
    page = PILImage.new("RGB", layout.size, PAGE)
    draw = ImageDraw.Draw(page)
    if query is not None and layout.query is not None:
        draw.rectangle(_inclusive(layout.query.frame), outline=QUERY, width=QUERY_BORDER)
        _paste_label(page, layout.query.label, QUERY_MARK, QUERY)
        _paste(page, query, layout.query.picture)
    for number, (cell, boxes) in enumerate(zip(cells, layout.cells, strict=True), start=1):
        _draw_cell(page, draw, cell, boxes, str(number))
    return Sheet(page, layout)


def _draw_cell(page: Image, draw: ImageDraw, cell: Cell, boxes: CellBoxes, label: str) -> None:
    draw.rectangle(_inclusive(boxes.frame), outline=INK, width=BORDER)
    _paste_label(page, boxes.label, label, INK)
    if cell.unreadable:
        draw.rectangle(_inclusive(boxes.picture), fill=UNREADABLE)
        _draw_text(draw, boxes.picture, cell.text or "picture not readable")
    elif cell.picture is not None:
        _paste(page, cell.picture, boxes.picture)
        if boxes.text is not None:
            _draw_text(draw, boxes.text, cell.text)
    else:
        _draw_text(draw, boxes.picture, cell.text)


def fit(image: Image, side: int) -> Image:
    """Return a picture in RGB, transparent parts white, scaled to fit a square of ``side`` pixels."""
    from PIL import Image as PILImage

    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = PILImage.new("RGBA", image.size, (*PAGE, 255))
        image.alpha_composite(rgba)
    size = fitted_size(image.size, side)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size == size:
        return image
    # Reducing first by whole factors costs a fraction for large photographs and looks the same.
    return image.resize(size, PILImage.Resampling.LANCZOS, reducing_gap=3.0)


def _paste(page: Image, image: Image, box: Box) -> None:
    fitted = fit(image, box.size[0])
    left = box.left + (box.size[0] - fitted.width) // 2
    top = box.top + (box.size[1] - fitted.height) // 2
    page.paste(fitted, (left, top))


def _paste_label(page: Image, box: Box, text: str, colour: Colour) -> None:
    page.paste(_label(box.size, text, colour), (box.left, box.top))


@lru_cache(maxsize=128)
def _label(size: tuple[int, int], text: str, colour: Colour) -> Image:
    """Draw a label; the same ones stand on every sheet."""
    from PIL import Image as PILImage
    from PIL import ImageDraw

    label = PILImage.new("RGB", size, colour)
    height = size[1] - LABEL_PADDING
    font = _font(height)
    while font.getlength(text) > size[0] - LABEL_PADDING and height > 8:
        height -= 1
        font = _font(height)
    bold = int(height >= 24)  # the font has one weight
    centre = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(label).text(
        centre, text, font=font, fill=PAGE, anchor="mm", stroke_width=bold, stroke_fill=PAGE
    )
    return label


def _draw_text(draw: ImageDraw, box: Box, text: str) -> None:
    """Write text into a box, wrapped, and ended with … where it does not fit."""
    width, height = box.size[0] - 6, box.size[1] - 4
    size = min(max(box.size[0] // 14, 10), 28)
    font = _font(size)
    line_height = round(size * 1.25)
    lines = _wrap(" ".join(text.split()), font, width, max(1, height // line_height))
    for number, line in enumerate(lines):
        draw.text((box.left + 3, box.top + 2 + number * line_height), line, font=font, fill=INK)


def _wrap(text: str, font: FreeTypeFont, width: int, max_lines: int) -> list[str]:
    lines: list[str] = []
    while text and len(lines) < max_lines:
        end = len(text)
        if font.getlength(text[:400]) > width or end > 400:
            end = next((i for i in range(1, len(text) + 1) if font.getlength(text[:i]) > width), end + 1) - 1
            space = text.rfind(" ", 0, end + 1)
            end = space if space > 0 else max(end, 1)
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    if text and lines:
        last = lines[-1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines[-1] = last + "…"
    return lines


@lru_cache(maxsize=64)
def _font(size: int) -> FreeTypeFont:
    # Pillow reads and parses the file anew in every call.
    from PIL import ImageFont

    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError(
            "labels need a Pillow with FreeType support; the wheels from the package index have it"
        )
    return font


def _inclusive(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.right - 1, box.bottom - 1
