"""What tests of served models share."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.schema import NodeWithScore
from PIL import Image
from support.red_pictures import red_nodes

from llama_index_multimodal_rerank import ImageTextQuery
from llama_index_multimodal_rerank.vlm import retries


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_backoff", lambda state: 0.0)


@pytest.fixture
def nodes(tmp_path: Path) -> list[NodeWithScore]:
    return red_nodes(tmp_path)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / "query.png")
    return str(tmp_path / "query.png")


@pytest.fixture
def query(picture: str) -> ImageTextQuery:
    return ImageTextQuery("redder", image_path=picture)
