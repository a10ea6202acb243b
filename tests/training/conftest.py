"""Pictures of the recipes, and one thread for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training import reranker
from training.pictures import draw_nameless, draw_products, draw_sources, draw_things
from training.rerank_cases import Cases


@pytest.fixture(autouse=True, scope="module")  # before the modules' own trainings
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the reranker's training pictures."""
    return tmp_path_factory.mktemp("drawings")


@pytest.fixture(scope="session")
def cases(drawings: Path) -> Cases:
    """Cases of a few such pictures."""
    common = {"seed": 0, "workers": 1}
    return Cases(
        draw_products(drawings, 64, sizes=reranker.PRODUCT_SIZES, **common),
        draw_products(drawings / "asked", 32, sizes=reranker.QUERY_SIZES, seed=1, workers=1),
        draw_sources(drawings, 16, sizes=reranker.QUERY_SIZES, **common),
        [draw(drawings, 16, sizes=reranker.PRODUCT_SIZES, **common) for draw in (draw_things, draw_nameless)],
    )
