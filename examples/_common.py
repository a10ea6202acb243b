"""What the example scripts share: photographs, a drawn catalogue, and a model.

Nothing here is needed to use the package; read the scripts, they call its public names only.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from llama_index.core.schema import NodeWithScore

from llama_index_multimodal_rerank import ImageLoadError, ImageTextQuery, Phi3VisionRerank, load_image
from llama_index_multimodal_rerank.app import models
from llama_index_multimodal_rerank.demo.catalogue import draw_catalogue, draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import Look
from llama_index_multimodal_rerank.embeddings.image_text_embedding import ImageTextEmbedding

OUTPUT = Path("example-output")
MODEL_HELP = "Visualized BGE: hub name, file or folder; MagicLens: magiclens-base, or a path like it"

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


def photograph_model(description: str | None) -> ImageTextEmbedding:
    """Return the model that the command line names, loaded; end with an error where it is not to be had."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--model", default=models.DEFAULT_EMBEDDING, help=f"{MODEL_HELP} (default: %(default)s)"
    )
    name = parser.parse_args().model
    if name == "demo":
        parser.error(
            "the model 'demo' knows drawings only, and these are photographs: its results would mean "
            "nothing. examples/quickstart.py asks it for drawings"
        )
    embed_model = embedding_of(name)
    load(embed_model)
    return embed_model


def load(embed_model: ImageTextEmbedding, reranker: Phi3VisionRerank | None = None) -> None:
    """Load models before anything else is done; end with a clear error where they are not to be had."""
    try:
        print(f"Loading {embed_model.model_name} …", flush=True)
        print(f"Loaded: {embed_model.dim} dimensions.")
        if reranker is not None:
            print(f"Loading {reranker.model} …", flush=True)
            reranker.vision_language_model.load()  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"{error}\nWithout a download: examples/quickstart.py, with tiny models that know drawings."
        ) from None


def check_picture(parser: argparse.ArgumentParser, argument: str, path: Path) -> None:
    """End with a clear error where an argument of the command line is no picture, before anything is done."""
    try:
        load_image(path)
    except ImageLoadError as error:
        parser.error(f"argument {argument}: {path}: {error.reason}")


def embedding_of(name: str) -> ImageTextEmbedding:
    """Return the embedding of a model, Visualized BGE or MagicLens; it shows how far it is with an index."""
    embed_model = models.embedding_of(name)
    embed_model.show_progress_bar = True
    return embed_model


def print_hits(title: str, hits: Sequence[NodeWithScore]) -> None:
    """Print a ranked list."""
    print(f"\n{title}")
    for rank, hit in enumerate(hits, start=1):
        print(f"  {rank}. {hit.score:.3f}  {hit.node.metadata['file_name']}")


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
