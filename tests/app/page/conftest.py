"""A small drawn catalogue, open for the page, and the page itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_index_multimodal_rerank.app.collections import Collection, CollectionSource, connect
from llama_index_multimodal_rerank.app.models import ModelChoice
from llama_index_multimodal_rerank.demo.catalogue import draw_catalogue, draw_query_picture

SHOP_SIZE = 160
"""Each kind with each surface once."""

DEMO = ModelChoice(embedding="demo", reranker="demo", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """A collection of drawn products, each with kind, surface, colour and price; do not change it."""
    place = tmp_path_factory.mktemp("shop")
    looks = {each.path.name: each.look for each in draw_catalogue(place / "products", count=SHOP_SIZE)}
    opened = connect(CollectionSource(uri=str(place / "shop.db"), images=place / "products"), DEMO)

    def describe(path: Path) -> dict[str, object]:
        look = looks[path.name]
        shown = {"kind": look.kind, "surface": look.surface, "colour": look.colour}
        return {"title": str(look), **shown, "price": 5 + int(path.stem) % 40}

    opened.sync(place / "products", metadata=describe)
    yield dataclasses.replace(
        opened, source=CollectionSource(), title="the shop"
    )  # the demo's, with examples
    opened.close()


@pytest.fixture(scope="session")
def leopard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn leopard."""
    path = tmp_path_factory.mktemp("queries") / "leopard.png"
    draw_query_picture("leopard", 0).save(path)
    return path
