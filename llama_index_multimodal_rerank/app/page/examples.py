"""Questions to try on the demo's catalogue, with drawn query pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO

from ...demo.catalogue import draw_query_picture
from ...demo.drawing.looks import Look
from ...images.access import DEFAULT_ACCESS
from .markup import render
from .thumbnails import thumbnail

_ASKED: tuple[tuple[Look | str, str, str], ...] = (
    ("leopard", "a leopard", "a phone case with this"),
    (Look("dress", "stripes", "green"), "a green dress with stripes", "the same, but as an umbrella"),
    ("brick", "a brick wall", "I want this pattern on a backpack"),
)


@dataclass(frozen=True)
class Example:
    """A question to click on.

    Attributes:
        image: the query picture, as a PNG file.
        shows: what is on it.
        words: the words.
    """

    image: bytes = field(repr=False)
    shows: str
    words: str

    @property
    def picture(self) -> str:
        """The query picture, small, as a ``data:`` URI."""
        return thumbnail(self.image, DEFAULT_ACCESS)[0]


def demo_examples() -> list[Example]:
    """Draw the questions of the quickstart."""
    examples = []
    for seed, (picture, shows, words) in enumerate(_ASKED):
        buffer = BytesIO()
        draw_query_picture(picture, seed).save(buffer, "PNG")
        examples.append(Example(buffer.getvalue(), shows, words))
    return examples


def render_examples(examples: list[Example]) -> str:
    """Return questions to click on as HTML."""
    return render("examples", examples=examples)
