"""What the README promises to run, runs."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from llama_index.core import Settings
from support.tiny_phi3_vision import write_folder

from llama_index_multimodal_rerank import VisualizedBGEEmbedding

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def rerank_model(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "phi3-vision")


def test_the_program(
    embed_model: VisualizedBGEEmbedding,
    rerank_model: Path,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = re.search(r"## The program\n\n```python\n(.*?)```", README, re.DOTALL)
    assert program is not None
    code = program[1]
    for written, here in {
        "VisualizedBGEEmbedding()": f"VisualizedBGEEmbedding(model_name={embed_model.model_name!r})",
        "Phi3VisionRerank(top_n=3)": f"Phi3VisionRerank(top_n=3, model={str(rerank_model)!r})",
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
    assert len(lines) == 3
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert len({line.split()[1] for line in lines}) == 3


def test_linked_files_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(targets) > 5
    for target in targets:
        assert (ROOT / target).exists(), target


def imported_modules(path: Path) -> set[str]:
    """Modules that a file imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module)
    return found


def test_dependencies_are_what_is_imported() -> None:
    names = {
        "PIL": "pillow",
        "llama_index.core": "llama-index-core",
        "llama_index.vector_stores": "llama-index-vector-stores-milvus",
    }
    found: set[str] = set()
    for path in (ROOT / "llama_index_multimodal_rerank").rglob("*.py"):
        for module in imported_modules(path):
            top = ".".join(module.split(".")[: 2 if module.startswith("llama_index.") else 1])
            if top not in sys.stdlib_module_names:
                found.add(names.get(top, top.replace("_", "-")).lower())
    declared = {
        re.split(r"[\[<>=! ]", entry)[0].lower()
        for entry in requires("llama-index-multimodal-rerank") or ()
        if "extra ==" not in entry
    }
    optional = {"pillow-heif", "scipy", "mteb"}  # extras, imported where they are installed
    assert found == declared | optional
