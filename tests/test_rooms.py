"""The tree is the architecture: which room may import which, read from the imports themselves."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import llama_index_multimodal_rerank

PACKAGE = Path(llama_index_multimodal_rerank.__file__).parent
REPOSITORY = Path(__file__).parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "lazy": set(),
    "logs": set(),
    "retry_after": set(),
    "models": set(),
    "images": {"logs"},
    "demo": set(),
    "schema": {"images", "logs"},
    "data": {"images", "schema"},
    "catalogue": {"images", "schema", "logs"},
    "vlm": {"models", "demo", "images", "lazy", "logs", "retry_after"},
    "embeddings": {"models", "demo", "lazy", "logs", "retry_after", "images", "schema"},
    "serving": {"embeddings", "schema", "images", "logs"},
    "evaluation": {"embeddings", "schema", "data", "images", "logs"},
    "milvus": {"embeddings", "schema", "images", "data"},
    "reranking": {"vlm", "schema", "images", "lazy", "logs"},
    "indexing": {"milvus", "data", "embeddings", "schema", "images", "logs"},
    "agents": {"milvus", "schema", "images", "logs"},
    "app": {
        *("agents", "evaluation", "reranking", "milvus", "embeddings", "vlm"),
        *("data", "schema", "demo", "images", "logs"),
    },
}
"""Rooms, each with those that it may import; the order is from the bottom to the top."""

FOR_ALL = {"models.hd_geometry"}
"""Arithmetic without torch: sheets are drawn in the geometry that the model cuts them into."""

SHARED = {"lazy", "logs", "retry_after"}
"""Helpers in the root, for every room."""

IMPLEMENTATIONS = {
    "vlm.phi3_vision",
    "vlm.phi3_loading",
    "vlm.phi3_prefilled",
    "vlm.phi3_engine",
    "vlm.phi3_prompts",
    "vlm.static_decoding",
    "vlm.llama_index",
    "vlm.decoding",
    "vlm.prompt_batch",
    "vlm.permutation_constraint",
    "vlm.permutation_logits",
}
"""What reranking must not know of vlm."""

WITHOUT_LLAMA_INDEX = ("models", "images", "demo")


def read_imports(package: Path) -> dict[str, set[str]]:
    """Return the modules of a package, each with those of its own package that it imports, anywhere."""
    files = {_name(package, file): file for file in package.rglob("*.py")}
    return {
        name: {
            target
            for imported in _targets(file, name, package.name)
            if (target := _module(imported, files)) is not None and target != name
        }
        for name, file in files.items()
    }


def _name(package: Path, file: Path) -> str:
    parts = file.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(file: Path, name: str, package: str) -> set[str]:
    here = name.split(".") if name else []
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            levels = node.level - (file.name == "__init__.py")
            base = here[: len(here) - levels] if levels else here
            prefix = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
        elif node.module and node.module.partition(".")[0] == package:
            prefix = node.module.partition(".")[2]
        else:
            continue
        found |= {f"{prefix}.{alias.name}".strip(".") for alias in node.names}
    return found


def _module(imported: str, files: dict[str, Path]) -> str | None:
    """The module that ``a.b.name`` stands for: ``a.b.name``, or ``a.b`` that holds the name."""
    if imported in files:
        return imported
    parent = imported.rpartition(".")[0]
    return parent if parent in files and parent else None


def room(module: str) -> str:
    return module.partition(".")[0]


def violations(imports: dict[str, set[str]]) -> list[str]:
    return sorted(
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in targets
        if module
        and (
            (room(target) not in {room(module), *MAY_IMPORT[room(module)]} and target not in FOR_ALL)
            or (room(module) == "reranking" and target in IMPLEMENTATIONS)
        )
    )


IMPORTS = read_imports(PACKAGE)


def test_every_file_is_in_a_room() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries == {
        "__init__.py",
        "py.typed",
        "lazy.py",
        "logs.py",
        "retry_after.py",
        *(MAY_IMPORT.keys() - SHARED),
    }


def test_no_import_runs_upward() -> None:
    assert sum(map(len, IMPORTS.values())) > 100
    assert violations(IMPORTS) == []


def test_no_circle() -> None:
    try:
        list(TopologicalSorter({name: targets for name, targets in IMPORTS.items() if name}).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_models_do_not_know_each_other() -> None:
    """What two models share lies beside their folders, not in one of them."""
    folders = {path.name for path in (PACKAGE / "models").iterdir() if (path / "__init__.py").is_file()}
    assert len(folders) > 2
    for module, targets in IMPORTS.items():
        for target in targets:
            own, other = (name.split(".")[1:2] for name in (module, target))
            if room(module) == room(target) == "models" and other and other[0] in folders:
                assert own == other, f"{module} imports {target}"


@pytest.mark.parametrize("name", WITHOUT_LLAMA_INDEX)
def test_rooms_without_llama_index(name: str) -> None:
    for file in (PACKAGE / name).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(re.match(r"llama_index(\.|$)", each) for each in names), file


def test_the_rules_see_what_breaks_them(tmp_path: Path) -> None:
    for path, text in {
        "__init__.py": "from .schema import nodes\n",
        "models/__init__.py": "",
        "models/m.py": "def f():\n    from ..schema.nodes import x\n",
        "schema/__init__.py": "from . import nodes\n",
        "schema/nodes.py": "if TYPE_CHECKING:\n    from ..models.m import f\n",
        "reranking/a.py": "from ..vlm.phi3_vision import LocalPhi3Vision\n",
        "vlm/phi3_vision.py": "LocalPhi3Vision = 1\n",
    }.items():
        file = tmp_path / "package" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    imports = read_imports(tmp_path / "package")
    assert imports["schema"] == {"schema.nodes"}
    assert violations(imports) == [
        "models.m imports schema.nodes",
        "reranking.a imports vlm.phi3_vision",
        "schema.nodes imports models.m",
    ]
    with pytest.raises(CycleError):
        list(TopologicalSorter(imports).static_order())


def test_the_map_names_what_is_there() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert len(named) > 10
    for name in named:
        assert (PACKAGE / name).is_file() or (REPOSITORY / name).is_file(), name
    drawn = set(re.findall(r"^  (\w+)/", text, re.MULTILINE))
    assert drawn == MAY_IMPORT.keys() - SHARED
