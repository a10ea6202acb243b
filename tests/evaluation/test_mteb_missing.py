"""Without mteb, the adapters say what to install."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        each for each in sys.modules if each.startswith("llama_index_multimodal_rerank.evaluation.mteb")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ImportError, match=r'pip install "llama-index-multimodal-rerank\[mteb\]"'):
        importlib.import_module("llama_index_multimodal_rerank.evaluation.mteb")
