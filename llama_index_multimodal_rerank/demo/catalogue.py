"""The drawn catalogue as files, and questions to put to it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .drawing.looks import COLOURS, HELD_OUT, KINDS, SURFACES, Look
from .queries import FAMILIES, DemoQuery, make_query

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_COUNT = 900
MANIFEST = "catalogue.json"
JPEG_QUALITY = 90

_FORMAT = 1
"""Goes up when the same seed gives other pictures, so that folders drawn before are drawn anew."""

_QUERY_SEEDS = 500_000
"""Pictures of queries have seeds from here on, those of products below."""


@dataclass(frozen=True)
class Product:
    """A product of the catalogue.

    Attributes:
        path: its picture, a JPEG file of 224 x 224 pixels.
        look: what it is.
    """

    path: Path
    look: Look


def catalogue_looks(count: int = DEFAULT_COUNT, *, seed: int = 0) -> list[Look]:
    """Choose the products of a catalogue.

    All 160 pairs of kind and surface are there equally often, give or take one, each time in another
    colour as long as there are any.

    Args:
        count: number of products, at least 1.
        seed: chooses colours and order.
    """
    import numpy as np

    if count < 1:
        raise ValueError(f"a catalogue has at least 1 product, got count={count}")
    rng = np.random.default_rng([seed, 1])
    pairs = [(kind, surface) for kind in KINDS for surface in SURFACES]
    colours = [rng.permutation(len(COLOURS)) for _ in pairs]
    looks: list[Look] = []
    while len(looks) < count:
        turn = len(looks) // len(pairs)
        for pair in rng.permutation(len(pairs)):
            kind, surface = pairs[pair]
            looks.append(Look(kind, surface, COLOURS[colours[pair][turn % len(COLOURS)]]))
    return looks[:count]


def draw_catalogue(
    folder: str | os.PathLike[str],
    *,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    show_progress: bool = False,
) -> list[Product]:
    """Draw a catalogue into a folder, or take it from there if it was drawn before.

    Args:
        folder: where the pictures are, made if it is missing. File names say nothing about the pictures;
            ``catalogue.json`` says what they show.
        count: number of products.
        seed: another one gives other products.
        show_progress: show a progress bar.

    Returns:
        The products, in the order of their files' names.

    Raises:
        FileExistsError: the folder has something else in it.
    """
    folder = Path(folder)
    products = [
        Product(folder / f"{number:04}.jpg", look)
        for number, look in enumerate(catalogue_looks(count, seed=seed))
    ]
    manifest = {
        "format": _FORMAT,
        "seed": seed,
        "products": {product.path.name: asdict(product.look) for product in products},
    }
    if _holds(folder, manifest):
        return products
    folder.mkdir(parents=True, exist_ok=True)
    names = {product.path.name for product in products}
    if foreign := sorted({path.name for path in folder.iterdir()} - names - {MANIFEST}):
        raise FileExistsError(
            f"{folder} holds {len(foreign)} other files, such as {foreign[0]}; name an empty or new folder "
            "for the catalogue, or delete the one drawn before"
        )
    (folder / MANIFEST).unlink(missing_ok=True)
    _draw_all(products, show_progress)
    # The manifest comes last: a folder with a whole one is complete.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return products


def _holds(folder: Path, manifest: dict[str, object]) -> bool:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(found == manifest) and all((folder / name).is_file() for name in found["products"])


def _draw_all(products: Sequence[Product], show_progress: bool) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tqdm.auto import tqdm

    def draw(job: tuple[int, Product]) -> None:
        from .drawing.products import draw_product

        seed, product = job
        draw_product(product.look, seed).save(product.path, "JPEG", quality=JPEG_QUALITY)

    # numpy and Pillow let other threads run while they compute.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        done = pool.map(draw, enumerate(products))
        for _ in tqdm(done, total=len(products), desc="Drawing", unit="picture", disable=not show_progress):
            pass


def draw_query_picture(picture: Look | str, seed: int) -> Image:
    """Draw what a query's picture shows: a product, or the source of a surface; 224 x 224 pixels.

    Never the same as a picture of the catalogue, whatever the seed.

    Args:
        picture: a product, or one of ``SURFACES``.
        seed: a number from 0 to 499,999.
    """
    from .drawing.products import draw_product
    from .drawing.sources import draw_source

    if not 0 <= seed < _QUERY_SEEDS:
        raise ValueError(f"seed must be from 0 to {_QUERY_SEEDS - 1:,}, got {seed}")
    if isinstance(picture, str):
        return draw_source(picture, _QUERY_SEEDS + seed)
    return draw_product(picture, _QUERY_SEEDS + seed)


def held_out_queries(
    products: Sequence[Look], *, composed_rounds: int = 3, other_rounds: int = 2, seed: int = 0
) -> list[DemoQuery]:
    """Make the questions of the evaluation, all for products with held-out looks.

    In each round, every held-out pair of kind and surface is asked for once in each family of queries.
    Every second question is worded as no question in training was.

    Args:
        products: the catalogue; pairs that it does not have are left out.
        composed_rounds: rounds of queries with picture and words.
        other_rounds: rounds of queries with words alone, and with a picture alone.
        seed: chooses words, targets and pictures.
    """
    import numpy as np

    from .queries import COMPOSED

    rng = np.random.default_rng([seed, 2])
    found = {
        pair: [look for look in products if (look.kind, look.surface) == pair] for pair in sorted(HELD_OUT)
    }
    queries = []
    for family in FAMILIES:
        for turn in range(composed_rounds if family in COMPOSED else other_rounds):
            for number, looks in enumerate(looks for looks in found.values() if looks):
                target = looks[int(rng.integers(len(looks)))]
                queries.append(make_query(family, target, rng, unseen_wording=bool((number + turn) % 2)))
    return queries
