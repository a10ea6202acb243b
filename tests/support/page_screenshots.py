"""Takes the pictures of the page that the documentation shows, of the demo's catalogue.

PYTHONPATH=tests python -m support.page_screenshots docs/images
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

from llama_index_multimodal_rerank.app.collections import CollectionSource, open_collection
from llama_index_multimodal_rerank.app.page import page_running

from .page_browser import Browser, browser

LARGEST_FILE = 300_000
"""Bytes."""


def save(window: Browser, path: Path, *, shrink: float = 1) -> None:
    """Save what is in a window as a PNG of 256 colours."""
    image = Image.open(BytesIO(window.driver.get_screenshot_as_png())).convert("RGB")
    if shrink != 1:
        image = image.resize(
            (round(image.width * shrink), round(image.height * shrink)), Image.Resampling.LANCZOS
        )
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size <= LARGEST_FILE, (path, path.stat().st_size)


def ask_example(window: Browser, address: str, place: int) -> None:
    """Open the page, ask one of its questions, and wait until all of it is answered."""
    window.open(address)
    before = window.lists()
    window.click("#examples button", place)
    window.wait_for_other_lists(before)
    window.wait_for("#said .ir-times li", 3)
    window.driver.execute_script("scrollTo(0, 0)")
    window.wait(lambda: not window.all(".generating, .progress-text, .eta-bar"), "the end of the search")


def take(folder: Path) -> None:
    """Take all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    collection, _ = open_collection(CollectionSource())
    with page_running(collection) as address:
        with browser(height=900) as light:
            ask_example(light, address, 0)
            save(light, folder / "app-light.png")
        with browser(height=900, dark=True) as dark:
            ask_example(dark, address, 1)
            save(dark, folder / "app-dark.png")
            dark.tab("Why")
            dark.wait_for("#saw img.ir-sheet")
            save(dark, folder / "app-why.png")
        with browser(width=390, height=1500, scale=2) as phone:
            ask_example(phone, address, 2)
            phone.driver.execute_script("document.querySelector('#lists').scrollIntoView()")
            save(phone, folder / "app-phone.png", shrink=0.5)
    collection.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
