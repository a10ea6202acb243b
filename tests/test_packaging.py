"""What pyproject.toml, constraints.txt and the README's commands say about versions fits together."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def requirements() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements", ROOT / ".ci" / "requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_constraints_are_names_and_versions_only() -> None:
    line = re.compile(r'[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*( ; python_version (<|>=) "3\.11")?')
    lines = [each for each in CONSTRAINTS if not each.startswith("# ") and each != "#"]
    assert len(lines) > 100
    assert [each for each in lines if not line.fullmatch(each)] == []
    assert lines == sorted(lines, key=lambda each: (each.partition("==")[0], ">=" in each))
    assert not [each for each in lines if re.match(r"torch|triton|nvidia|cuda", each)]


def test_what_is_declared_is_pinned_within_its_bounds(requirements: ModuleType) -> None:
    for line in CONSTRAINTS:  # for every Python, not only this one
        if not line.startswith("#"):
            pinned = Requirement(line)
            for required in requirements.declared(PYPROJECT):
                if canonicalize_name(required.name) == pinned.name:
                    version = next(iter(pinned.specifier)).version
                    assert required.specifier.contains(version), line
    pins = requirements.pins(CONSTRAINTS)
    declared = {canonicalize_name(each.name) for each in requirements.declared(PYPROJECT)}
    assert declared - set(pins) == {"torch"}


def test_upper_bounds_where_internals_are_used(requirements: ModuleType) -> None:
    """transformers and Milvus Lite end with the minor release that is pinned, on the newest Pythons."""
    bounds = {each.name: each.specifier for each in requirements.declared(PYPROJECT)}
    pins = dict(line.partition(" ;")[0].split("==") for line in CONSTRAINTS if not line.startswith("#"))
    for name in ("transformers", "milvus-lite"):
        newest = Version(pins[name])
        upper = {each.version for each in bounds[name] if each.operator == "<"}
        assert upper == {f"{newest.major}.{newest.minor + 1}"}


def test_every_dependency_has_both_bounds() -> None:
    for text in PYPROJECT["project"]["dependencies"]:
        assert {each.operator for each in Requirement(text).specifier} == {">=", "<"}, text


@pytest.mark.parametrize("mark", ["quickstart-command", "test-command"])
def test_the_readmes_commands_take_the_pinned_versions(mark: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(f"<!-- {mark} -->\n```console\n(.*?)```", readme, re.DOTALL)
    assert command is not None
    words = shlex.split(command[1])
    install = words[words.index("install") :]
    assert install[1:3] == ["-c", "constraints.txt"]


def test_the_description_on_a_package_index_has_no_relative_links() -> None:
    metadata = importlib.metadata.metadata("llama-index-multimodal-rerank")
    description = metadata.get_payload()
    assert "# llama-index-multimodal-rerank" in description
    assert re.findall(r"\]\((?!https?:)[^)]*\)", description) == []
    assert "by construction (docs/reranking.md)" in description
    urls = [entry.partition(", ")[2] for entry in metadata.get_all("Project-URL")]
    assert urls
    assert all(url.startswith("https://") for url in urls)


def test_oldest_are_the_lower_bounds(requirements: ModuleType) -> None:
    required = [Requirement(text) for text in ("a>=1.2,<2", "b[extra]>=3", "c", "d>=1; sys_platform == 'x'")]
    assert list(requirements.oldest(required)) == ["a==1.2", "b==3", "d==1"]


def test_unbounded_have_the_lower_bounds_alone(requirements: ModuleType) -> None:
    required = [Requirement(text) for text in ("a>=1.2,<2", "b[extra]<4,>=3", "c")]
    assert list(requirements.unbounded(required)) == ["a>=1.2", "b[extra]>=3", "c"]


def test_excluded_names_what_the_bounds_exclude(requirements: ModuleType) -> None:
    required = [Requirement(text) for text in ("Some.Name>=1.2,<2", "b>=3", "absent>=1")]
    installed = {"some-name": "2.0", "b": "3.1", "other": "1"}
    assert list(requirements.excluded(required, installed)) == ["Some.Name 2.0 (allowed: <2,>=1.2)"]


def test_pins_come_from_what_is_installed(requirements: ModuleType) -> None:
    freeze = ["A_b==1.0", "torch==2.14.1", "nvidia-nccl==1", "ours @ file:///somewhere", "c==2", "d==1.post1"]
    older = ["A_b==0.9", "c==2", "only-there==1"]
    lines = list(requirements.constraints(requirements.pins(freeze), requirements.pins(older)))
    assert lines == [
        'a-b==0.9 ; python_version < "3.11"',
        'a-b==1.0 ; python_version >= "3.11"',
        "c==2",
        "d==1.post1",
        "only-there==1",
    ]
    here = requirements.pins(["# a comment", *lines])
    assert here["a-b"] == ("1.0" if sys.version_info >= (3, 11) else "0.9")


def test_unpinned_names_what_constraints_leave_open(requirements: ModuleType) -> None:
    installed = {"a": "1", "b": "2", "c": "3", "our-package": "0", "pip": "26", "torch": "2", "cuda-x": "13"}
    assert list(requirements.unpinned({"a": "1", "b": "1"}, installed, "Our.Package")) == [
        "b 2 (constraints.txt: 1)",
        "c 3 (constraints.txt: None)",
    ]
