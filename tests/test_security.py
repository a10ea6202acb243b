"""What SECURITY.md says of the source, and that the tests it names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "llama_index_multimodal_rerank").rglob("*.py"))


def test_no_remote_code_and_no_unsafe_loading() -> None:
    assert len(SOURCES) > 30
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"trust_remote_code\s*=\s*True", source), path
        assert not re.search(
            r"\bpickle\.loads?\(|(?<![\w.])(?:eval|exec)\(|shell=True|\bos\.system\(", source
        ), path
        for call in re.findall(r"torch\.load\([^)]*\)", source):
            assert "weights_only=True" in call, path


def test_the_tests_that_security_md_names_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), name
