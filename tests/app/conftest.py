"""A small shop of drawn products, and a cache folder that is not the user's."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_index_multimodal_rerank.app.collections import Collection, CollectionSource, connect
from llama_index_multimodal_rerank.app.models import ModelChoice
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import Look

LOOKS = [
    Look(kind, surface, "red")
    for kind in ("mug", "shoe", "umbrella")
    for surface in ("leopard", "dots", "plain")
]
DEMO_ON_CPU = ModelChoice("demo", device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where collections go that nobody gave a place."""
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "multimodal_rerank"


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos/`` of nine products, their prices in ``prices.csv``, and a query picture."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "photos").mkdir()
    with (folder / "prices.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "title", "price"])
        for place, look in enumerate(LOOKS):
            name = f"{look.surface}-{look.kind}.png"
            draw_query_picture(look, seed=1).save(folder / "photos" / name)
            table.writerow([name, f"the {look}", 10 * place])
    draw_query_picture("leopard", seed=0).save(folder / "leopard.png")
    return folder


@pytest.fixture(scope="module")
def collection(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """The products, indexed with the demo's model; do not change them."""
    uri = str(tmp_path_factory.mktemp("collection") / "shop.db")
    prices = {f"{look.surface}-{look.kind}.png": 10 * place for place, look in enumerate(LOOKS)}
    opened = connect(CollectionSource(uri, shop / "photos"), DEMO_ON_CPU)
    opened.sync(
        shop / "photos",
        metadata=lambda path: {
            "price": prices[path.name],
            "title": path.stem,
            "tags": [path.stem.split("-")[0]],
            "sold": prices[path.name] > 40,
        },
    )
    yield opened
    opened.close()
