"""What the README promises to run, runs."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from llama_index.core import Settings

from llama_index_multimodal_rerank import VisualizedBGEEmbedding

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_program(
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = re.search(r"## The program\n\n```python\n(.*?)```", README, re.DOTALL)
    assert program is not None
    code = program[1]
    for written, here in {
        "VisualizedBGEEmbedding()": f"VisualizedBGEEmbedding(model_name={embed_model.model_name!r})",
        '"catalog.db"': repr(str(tmp_path / "catalog.db")),
        '"photos/"': repr(str(pictures[0].parent)),
        '"leopard.jpg"': repr(str(pictures[2])),
    }.items():
        assert written in code
        code = code.replace(written, here)
    capsys.readouterr()
    try:
        exec(code, {})
    finally:
        Settings.llm = None
    lines = [line for line in capsys.readouterr().out.splitlines() if "picture-" in line]
    assert len(lines) == 6
    assert lines[0].endswith("picture-2.png")


def test_linked_files_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(targets) > 5
    for target in targets:
        assert (ROOT / target).exists(), target


def test_dependencies_are_what_is_imported() -> None:
    names = {
        "FlagEmbedding": "FlagEmbedding",
        "PIL": "pillow",
        "dataclasses_json": "dataclasses-json",
        "httpx": "httpx",
        "huggingface_hub": "huggingface-hub",
        "llama_index.core": "llama-index-core",
        "llama_index.vector_stores": "llama-index-vector-stores-milvus",
        "numpy": "numpy",
        "pymilvus": "pymilvus",
        "safetensors": "safetensors",
        "timm": "timm",
        "torch": "torch",
        "tqdm": "tqdm",
        "transformers": "transformers",
    }
    found: set[str] = set()
    for path in (ROOT / "llama_index_multimodal_rerank").rglob("*.py"):
        lines = re.sub(r"if TYPE_CHECKING:\n(?:    .*\n|\n)+", "", path.read_text())
        for module in re.findall(r"^\s*(?:from|import) ([a-zA-Z_][\w.]*)", lines, re.MULTILINE):
            top = ".".join(module.split(".")[: 2 if module.startswith("llama_index.") else 1])
            found.add(names.get(top, top))
    declared = {
        re.split(r"[\[<>=! ]", entry)[0]
        for entry in requires("llama-index-multimodal-rerank") or ()
        if "extra ==" not in entry
    }
    third_party = {name for name in found if name not in sys.stdlib_module_names and name != "__future__"}
    assert {name.lower() for name in third_party} == {name.lower() for name in declared}
