"""Draw docs/images/sheet.png: nine lamps, and a query for one of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from llama_index_multimodal_rerank import Cell, build_sheet

COLOURS = {"blue": "#3b6fb6", "green": "#4f9d5b", "yellow": "#e0b73c", "purple": "#8a5aa8"}
SHADES = ("cone", "ball", "drum")


def lamp(colour: str, shade: str) -> Image.Image:
    """Draw a lamp with a shade of a colour."""
    image = Image.new("RGB", (200, 260), "#f3efe6")
    draw = ImageDraw.Draw(image)
    draw.rectangle((94, 110, 106, 230), fill="#555555")
    draw.ellipse((50, 220, 150, 244), fill="#555555")
    shapes = {
        "cone": lambda: draw.polygon([(75, 30), (125, 30), (165, 120), (35, 120)], fill=colour),
        "ball": lambda: draw.ellipse((45, 20, 155, 130), fill=colour),
        "drum": lambda: draw.rectangle((50, 35, 150, 120), fill=colour),
    }
    shapes[shade]()
    return image


def main() -> None:
    """Write the picture beside this file."""
    names = ("blue", "green", "yellow")
    cells = [Cell(lamp(COLOURS[name], shade)) for shade in SHADES for name in names]
    sheet = build_sheet(cells, lamp(COLOURS["purple"], "ball"), num_crops=4)
    sheet.image.quantize(64).save(Path(__file__).with_name("sheet.png"), optimize=True)


if __name__ == "__main__":
    main()
