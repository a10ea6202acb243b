"""What pip installs is what the package imports."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).parent.parent


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
    optional |= {"starlette", "uvicorn"}  # the extra serve
    optional |= {"ray", "pyarrow"}  # the extra ray
    optional |= {"gradio", "jinja2"}  # the extra app
    assert found == declared | optional
