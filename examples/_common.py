"""What the example scripts share: photographs, a model, and a picture of the results.

Nothing here is needed to use the package; read the scripts, they call its public names only.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import NodeWithScore
from PIL import Image, ImageDraw, ImageFont, ImageOps

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    MagicLensEmbedding,
    VisualizedBGEEmbedding,
    load_image,
)
from llama_index_multimodal_rerank.demo.catalogue import draw_catalogue, draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import Look

OUTPUT = Path("example-output")

# The photographs that scikit-image brings in its wheel.
PHOTOGRAPHS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
]


def photographs() -> Path:
    """Return a folder with 15 real photographs, copied out of scikit-image."""
    try:
        import skimage
    except ImportError as error:
        raise SystemExit("The photographs come from scikit-image: pip install scikit-image") from error
    folder = OUTPUT / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder)
    return folder


def example_embedding() -> VisualizedBGEEmbedding:
    """Return the released model, or without a hub the tiny one that comes with the package."""
    embed_model = VisualizedBGEEmbedding()
    try:
        print(f"Loading {embed_model.model_name} …")
        print(f"Loaded: {embed_model.dim} dimensions, on {embed_model.model.device}.")
    except OSError as error:
        print(f"\n{error}\n")
        print("=" * 88)
        print("NO MODEL: going on with the TINY DEMO MODEL of this package, which was trained on drawings.")
        print("It shows that everything runs; it has never seen a photograph and knows few words.")
        print("=" * 88)
        return VisualizedBGEEmbedding(model_name="demo")
    return embed_model


def embedding_of(model_name: str) -> MagicLensEmbedding | VisualizedBGEEmbedding:
    """Return the embedding of a model: MagicLens if it is called so, else Visualized BGE."""
    is_magiclens = re.search("magic_?lens", model_name.lower()) is not None
    embedding = MagicLensEmbedding if is_magiclens else VisualizedBGEEmbedding
    return embedding(model_name=model_name, show_progress_bar=True)


def print_hits(title: str, hits: Sequence[NodeWithScore]) -> None:
    """Print a ranked list."""
    print(f"\n{title}")
    for rank, hit in enumerate(hits, start=1):
        print(f"  {rank}. {hit.score:.3f}  {hit.node.metadata['file_name']}")


def file_name(hit: NodeWithScore) -> str:
    """Return the name of the picture's file."""
    return Path(hit.node.image_path).name


# -- the drawn catalogue ---------------------------------------------------------------------------


def demo_catalogue() -> tuple[Path, dict[str, str]]:
    """Draw the catalogue, if it is not there yet; return its folder, and what each file shows."""
    folder = OUTPUT / "catalogue"
    products = draw_catalogue(folder, show_progress=True)
    return folder, {product.path.name: str(product.look) for product in products}


def demo_queries() -> list[ImageTextQuery]:
    """Return three queries for the drawn catalogue; their pictures are drawn, too."""
    shown = {
        "leopard.png": ("leopard", "a phone case with this"),
        "dress.png": (Look("dress", "stripes", "green"), "the same, but as an umbrella"),
        "wall.png": ("brick", "I want this pattern on a backpack"),
    }
    queries = []
    for number, (name, (picture, text)) in enumerate(shown.items()):
        path = OUTPUT / "queries" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_query_picture(picture, number).save(path)
        queries.append(ImageTextQuery(text, image_path=path))
    return queries


# -- before and after ------------------------------------------------------------------------------


@dataclass
class QueryResult:
    """A query with what was retrieved, and the same reranked, if it was."""

    query: ImageTextQuery
    before: list[NodeWithScore]
    after: list[NodeWithScore] | None

    @property
    def places_before(self) -> list[int]:
        """For each picture of the last list, its place in ``before``, from 1."""
        places = {hit.node.node_id: place for place, hit in enumerate(self.before, start=1)}
        return [places[hit.node.node_id] for hit in self.after or self.before]


def print_asked(asked: QueryResult, described: dict[str, str]) -> None:
    """Print what was found; reranked, both lists side by side, and why the first is the first."""
    print(f"\n[{asked.query.image_path}] + {asked.query.query_str!r}")
    before = [_line(hit, described) for hit in asked.before]
    if asked.after is None:
        for rank, line in enumerate(before, start=1):
            print(f"  {rank}. {line}")
        return
    print(f"     {'retrieved':<44}reranked")
    for rank, (left, hit, place) in enumerate(zip(before, asked.after, asked.places_before, strict=True), 1):
        print(f"  {rank}. {left:<44}{_line(hit, described)}  (was {place})")
    best = asked.after[0].node.metadata
    print(f"  The reranker saw in the query: {best.get('rerank_query_caption')}")
    print(f"  Its reason: {best.get('rerank_reason')}")


def _line(hit: NodeWithScore, described: dict[str, str]) -> str:
    return f"{hit.score:.3f}  {described.get(file_name(hit), file_name(hit))}"


def draw_asked(path: Path, asked: Sequence[QueryResult], described: dict[str, str]) -> Path:
    """Draw every query with its list, or both lists below each other, into a PNG."""
    side, margin, line, shown = 132, 12, 20, 9
    font, small = ImageFont.load_default(17), ImageFont.load_default(12)
    columns = min(shown, max(len(each.before) for each in asked))
    rows = 1 if all(each.after is None for each in asked) else 2
    block = rows * (side + line + margin) + 2 * line
    sheet = Image.new(
        "RGB", (3 * margin + (columns + 2) * (side + margin), margin + block * len(asked)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for number, each in enumerate(asked):
        top = margin + number * block
        draw.text(
            (margin, top),
            f"“{each.query.query_str}”" if each.query.query_str else "(no words)",
            "black",
            font,
        )
        top += 2 * line
        if each.query.image_path is not None:
            _paste(sheet, each.query.image_path, (margin, top), side)
            draw.rectangle(
                (margin - 3, top - 3, margin + side + 2, top + side + 2), outline="#aa0000", width=3
            )
        for row, (name, hits) in enumerate((("retrieved", each.before), ("reranked", each.after))[:rows]):
            y = top + row * (side + line + margin)
            draw.text((2 * margin + side, y + side // 2), name, "#57606a", font)
            for place, hit in enumerate((hits or [])[:columns]):
                x = 3 * margin + (place + 2) * (side + margin) - margin
                _paste(sheet, hit.node.image_path, (x, y), side)
                label = f"{place + 1}. {described.get(file_name(hit), file_name(hit))}"
                while draw.textlength(label, font=small) > side:
                    label = label.rstrip("…")[:-1] + "…"
                draw.text((x, y + side + 3), label, "black", small)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _paste(sheet: Image.Image, image_path: str, corner: tuple[int, int], side: int) -> None:
    picture = load_image(image_path).convert("RGB")
    sheet.paste(ImageOps.pad(picture, (side, side), color="#f2f2f2"), corner)
