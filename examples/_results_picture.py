"""A picture of retrieved and reranked lists, side by side, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from _results import Hit, QueryResult, columns
from PIL import Image, ImageDraw, ImageFont, ImageOps

from llama_index_multimodal_rerank import load_image

SIDE, MARGIN, GAP = 116, 16, 12
LINE = 15
COLUMNS = (3, 4, 5)
COLUMNS_ALONE = (9, 8, 7, 6, 5)
NAME_LINES = 4
"""A name that takes more is cut."""
GREY = "#57606a"
COLOURS = {"up": "#1a7f37", "down": "#9a6700", "same": GREY, None: GREY}


def draw_results(
    path: Path, results: Sequence[QueryResult], described: Mapping[str, str], models: Mapping[str, str]
) -> Path:
    """Draw every query with its lists beside it.

    Args:
        path: of the PNG file.
        results: the queries with their lists.
        described: what files show, by their names.
        models: which models did what, such as ``{"Retrieved by": "VisualizedBGEEmbedding, demo"}``.
    """
    blocks = [_block(result, described) for result in results]
    width, font = max(block.width for block in blocks), ImageFont.load_default(14)
    lines = [
        line for each in models.items() for line in wrap(" ".join(each), width - 2 * MARGIN, font, most=3)
    ]
    top = MARGIN + 20 * len(lines) + 14
    sheet = Image.new("RGB", (width, top + sum(block.height for block in blocks)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + 20 * number), line, GREY, font)
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    return path


def _block(result: QueryResult, described: Mapping[str, str]) -> Image.Image:
    """Draw a query: its picture, and a board for each list."""
    lists = result.lists(described)
    lines = max((len(_label(hit)) for hits in lists.values() for hit in hits), default=0)
    choices = COLUMNS if len(lists) > 1 else COLUMNS_ALONE
    boards = {name: _board(hits, lines, columns=columns(len(hits), choices)) for name, hits in lists.items()}
    heading, small = ImageFont.load_default(20), ImageFont.load_default(15)
    words = f"“{result.query.query_str}”" if result.query.query_str else "(no words)"
    left = 2 * MARGIN + 2 * GAP + SIDE
    wide = left + sum(board.width + 2 * GAP for board in boards.values())
    title = wrap(words, wide - 2 * MARGIN, heading, most=3)
    top = 26 * len(title) + 10
    high = max(SIDE + 2 * GAP, 24 + max(board.height for board in boards.values()))
    block = Image.new("RGB", (wide, top + high + MARGIN), "white")
    draw = ImageDraw.Draw(block)
    for number, line in enumerate(title):
        draw.text((MARGIN, 26 * number), line, "black", heading)
    if result.query.image_path is not None:
        _paste(block, result.query.image_path, (MARGIN + 3, top + 27))
        draw.rectangle((MARGIN, top + 24, MARGIN + SIDE + 5, top + SIDE + 29), outline="#aa0000", width=3)
    for name, board in boards.items():
        draw.text((left, top), name, GREY, small)
        block.paste(board, (left, top + 24))
        left += board.width + 2 * GAP
        if board is not list(boards.values())[-1]:
            draw.line((left - GAP - 6, top + 4, left - GAP - 6, top + high - GAP), "#d0d7de", 1)
    return block


def _board(hits: Sequence[Hit], name_lines: int, *, columns: int) -> Image.Image:
    """Draw a list as a grid, row by row."""
    height = SIDE + LINE * (1 + name_lines) + 14
    board = Image.new("RGB", (columns * (SIDE + GAP), max(1, -(-len(hits) // columns)) * height), "white")
    draw = ImageDraw.Draw(board)
    bold, font = ImageFont.load_default(14), ImageFont.load_default(13)
    for number, hit in enumerate(hits):
        x, y = number % columns * (SIDE + GAP), number // columns * height
        _paste(board, hit.image_path, (x, y))
        y += SIDE + 4
        draw.text((x, y), f"{hit.place}.", "black", bold)
        _draw_move(draw, (x + 24, y), hit)
        for line in _label(hit):
            y += LINE
            draw.text((x, y), line, "black", font)
    return board


def _label(hit: Hit) -> list[str]:
    return wrap(hit.name, SIDE + GAP - 6, ImageFont.load_default(13), most=NAME_LINES)


def _draw_move(draw: ImageDraw.ImageDraw, corner: tuple[int, int], hit: Hit) -> None:
    """Say where a picture was before, or is now; Pillow's own font has no arrows."""
    if hit.other_place is None:
        return
    x, y = corner
    colour = COLOURS[hit.moved]
    if hit.moved == "up":
        draw.polygon([(x, y + 12), (x + 10, y + 12), (x + 5, y + 4)], colour)
    elif hit.moved == "down":
        draw.polygon([(x, y + 4), (x + 10, y + 4), (x + 5, y + 12)], colour)
    elif hit.moved == "same":
        draw.rectangle((x, y + 7, x + 9, y + 9), colour)
    if hit.moved is not None:
        x += 15
    draw.text(
        (x, y),
        f"now {hit.other_place}" if hit.moved is None else f"was {hit.other_place}",
        colour,
        ImageFont.load_default(13),
    )


def wrap(
    text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, *, most: int
) -> list[str]:
    """Break a text into lines, between words where it can be; what is longer than ``most`` lines is cut.

    Args:
        text: without line ends.
        width: of a line, in pixels.
        font: that it is drawn with.
        most: lines.
    """
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:  # a long name of a file has no spaces
            if font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) > most:
        last = lines[most - 1]
        while font.getlength(f"{last}…") > width:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return lines


def _paste(sheet: Image.Image, image_path: str, corner: tuple[int, int]) -> None:
    picture = load_image(image_path).convert("RGB")
    sheet.paste(ImageOps.pad(picture, (SIDE, SIDE), color="#f2f2f2"), corner)
