"""What the page answers to events, where others have changed something meanwhile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llama_index_multimodal_rerank.app.collections import CollectionSource, connect
from llama_index_multimodal_rerank.app.models import ModelChoice
from llama_index_multimodal_rerank.app.page.filter_panel import MAX_CHOICES, MAX_RANGES
from llama_index_multimodal_rerank.app.page.open_collections import OpenCollections
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import Look

pytest.importorskip("gradio", reason="needs Gradio: pip install '.[app]'")

DEMO = ModelChoice("demo", device="cpu", dtype="float32")


def test_filters_mean_what_they_meant_when_they_were_shown(tmp_path: Path) -> None:
    """Another session indexes the folder, which has other metadata by then: the filters' places change."""
    from llama_index_multimodal_rerank.app.page.page import Page

    folder = tmp_path / "photos"
    folder.mkdir()
    for kind in ("mug", "shoe"):
        draw_query_picture(Look(kind, "dots", "red"), seed=1).save(folder / f"{kind}.png")
    first = connect(CollectionSource(str(tmp_path / "c.db"), folder), DEMO)
    first.sync(folder, metadata=lambda path: {"kind": path.stem})
    collections = OpenCollections(first)
    page = Page(collections, tmp_path)
    _, shown, choices, *_ = page.choose(first.title)

    def found(shown: Any) -> list[str]:
        picked: list[Any] = [["mug"], *[[]] * (MAX_CHOICES - 1), *[None] * (2 * MAX_RANGES)]
        *_, (message, lists, *_) = page.search(None, "a shoe", 9, "none", first.title, shown, *picked)
        assert message == ""
        return re.findall(r'data-file="([^"]+)"', lists)

    try:
        assert choices.label == "kind"
        assert found(shown) == ["mug.png"]
        first.sync(folder, metadata=lambda path: {"brand": f"of {path.stem}", "kind": path.stem})
        _, _, _, again, *_ = page.index(str(folder))[1:]
        assert again.label == "brand"  # who indexed it sees at once what is there now
        assert found(shown) == ["mug.png"]
    finally:
        collections.close()
        first.close()
