"""The documentation's site: no page is missing in its navigation, no public name in its reference.

``mkdocs build --strict`` and ``docs/run_notebook.py`` are steps of .ci/run; nothing here needs them.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import llama_index_multimodal_rerank as package
from llama_index_multimodal_rerank import evaluation

DOCS = Path(__file__).parent.parent / "docs"
CONFIG = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
NOTEBOOK = DOCS.parent / "examples" / "composed_image_retrieval.ipynb"
MADE = {"readme.md", "changelog.md", "security.md", "notebook.md"}
"""Pages that docs/hooks/repository_files.py makes of files outside of docs/."""


def test_every_page_is_in_the_navigation() -> None:
    navigation = CONFIG.partition("\nnav:")[2].partition("\nplugins:")[0]
    listed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert sorted(listed) == sorted(pages | MADE), "nav of mkdocs.yml"


def test_every_public_name_is_in_the_reference() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")}
    shown = set(
        re.findall(r"^::: llama_index_multimodal_rerank\.(\S+)$", "\n".join(pages.values()), re.MULTILINE)
    )
    names = {name for name in package.__all__ if name != "__version__"}
    assert names <= shown
    assert {f"evaluation.{name}" for name in evaluation.__all__} <= shown
    assert names <= set(re.findall(r"`(\w+)`", pages["index"]))


def test_nothing_of_the_site_is_fetched_from_elsewhere() -> None:
    assert re.search(r"^  font: false$", CONFIG, re.MULTILINE)
    assert "http" not in CONFIG
    assert "http" not in (DOCS / "site.css").read_text(encoding="utf-8")


def test_the_page_of_the_notebook_shows_what_it_drew_and_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "hooks")
    page = importlib.import_module("notebook_page").notebook_to_markdown(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert page.startswith("# Composed image retrieval")
    assert page.count("```python\n") == len(code)
    outputs = [output for cell in code for output in cell["outputs"]]
    pictures = sum("image/jpeg" in output.get("data", {}) for output in outputs)
    assert page.count("](data:image/jpeg;base64,") == pictures
    assert page.count("```text\n") == len(outputs) - pictures


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_the_notebook_is_kept_as_it_ran() -> None:
    assert NOTEBOOK.stat().st_size < 1_000_000
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 5
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert not re.search(r"/(home|root|tmp|work)/", json.dumps(outputs))


def test_the_notebook_tells_of_composition_in_three_numbers() -> None:
    printed = "".join(
        "".join(output.get("text", "")) for cell in cells() if "outputs" in cell for output in cell["outputs"]
    )
    image, text, composed = (
        float(found) for found in re.findall(r"^asked with \w+ +Recall@1 (0\.\d\d)$", printed, re.MULTILINE)
    )
    assert composed > 2 * max(image, text)
    retrieved, reranked = (
        float(found)
        for found in re.findall(r"^(?:retrieved|reranked) +Recall@1 (0\.\d\d)$", printed, re.MULTILINE)
    )
    assert reranked > retrieved == composed
