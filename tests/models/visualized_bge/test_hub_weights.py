"""The authors' published similarities, with the released weights, wherever those are in the local cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llama_index_multimodal_rerank.models.visualized_bge import ModelFilesError, VisualizedBGE

README = Path(__file__).parents[4] / "shared" / "reference" / "visualized_bge_readme"
NAMES = {"base-en-v1.5": "BAAI/bge-visualized-base-en-v1.5", "m3": "BAAI/bge-visualized-m3"}


def item(entry: dict[str, str]) -> Any:
    text = entry.get("text", "")
    return (text, Image.open(README / entry["image"])) if "image" in entry else text


@pytest.mark.hub
@pytest.mark.parametrize("model", NAMES)
def test_published_similarities(model: str) -> None:
    if not (README / "expected.json").is_file():
        pytest.skip(f"the pictures of the authors' README are not in {README}")
    try:
        bge = VisualizedBGE.from_pretrained(NAMES[model], dtype="float32", local_files_only=True)
    except ModelFilesError as error:
        pytest.skip(f"the released weights are not on this machine: {str(error).splitlines()[0]}")
    expected = json.loads((README / "expected.json").read_text(encoding="utf-8"))
    for entry in expected["cases"]:
        if entry["model"] == model:
            query, *candidates = bge.encode([item(entry["query"]), *map(item, entry["candidates"])])
            similarities = [float(query @ candidate) for candidate in candidates]
            assert similarities == pytest.approx(entry["similarities"], abs=expected["tolerance"])
