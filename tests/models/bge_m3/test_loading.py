"""Who computes the weights: FlagEmbedding where it imports, the native model where not."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.bge_m3_golden import read_json

from llama_index_multimodal_rerank.models.bge_m3.flag_embedding import FlagEmbeddingSparseModel
from llama_index_multimodal_rerank.models.bge_m3.loading import load_sparse_model
from llama_index_multimodal_rerank.models.bge_m3.sparse import BGEM3SparseModel

TEXTS: list[str] = read_json("cases.json")["texts"]


class Recorder:
    """Stands for ``FlagEmbedding.BGEM3FlagModel``: notes what it is asked for."""

    def __init__(self, folder: str, **options: Any) -> None:
        self.asked = [{"folder": folder, **options}]

    def encode(self, texts: list[str], **options: Any) -> dict[str, Any]:
        self.asked.append({"texts": texts, **options})
        return {"lexical_weights": [{"7": 0.5} for _ in texts]}


def test_flag_embedding_is_used_where_it_imports(seeded_m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("FlagEmbedding")
    package.BGEM3FlagModel = Recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "FlagEmbedding", package)
    model = load_sparse_model(seeded_m3, device="cpu", use_fp16=True)
    assert isinstance(model, FlagEmbeddingSparseModel)
    assert model.lexical_weights(["a", "b"], batch_size=3, max_length=9) == [{7: 0.5}, {7: 0.5}]
    assert model.lexical_weights([], batch_size=3, max_length=9) == []
    assert model._model.asked == [
        {"folder": str(seeded_m3), "use_fp16": True, "devices": "cpu"},
        {
            "texts": ["a", "b"],
            "batch_size": 3,
            "max_length": 9,
            "return_dense": False,
            "return_sparse": True,
            "return_colbert_vecs": False,
        },
    ]


def test_the_package_itself_is_used_where_it_imports(seeded_m3: Path) -> None:
    try:
        import FlagEmbedding  # noqa: F401

        expected: type = FlagEmbeddingSparseModel
    except Exception:
        expected = BGEM3SparseModel
    assert isinstance(load_sparse_model(seeded_m3, device="cpu"), expected)


def test_the_native_model_where_it_is_not_there(
    seeded_m3: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "FlagEmbedding", None)  # as if it were not installed
    with caplog.at_level(logging.INFO, logger="llama_index_multimodal_rerank"):
        model = load_sparse_model(seeded_m3, device="cpu")
    assert isinstance(model, BGEM3SparseModel)
    assert "FlagEmbedding cannot be imported" in caplog.text
    assert all(record.levelno < logging.WARNING for record in caplog.records)


@pytest.mark.parametrize(
    "failure",
    [
        "from transformers.modeling_attn_mask_utils_that_is_gone import x",  # as FlagEmbedding 1.4.2 on 5.24
        "raise RuntimeError('Failed to import a neighbour')",  # as transformers' lazy modules
        "import transformers; transformers.no_such_name",
        "",  # another package of that name, or one that has moved its class
    ],
)
def test_the_native_model_where_it_does_not_import(
    seeded_m3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    (tmp_path / "FlagEmbedding.py").write_text(failure, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "FlagEmbedding"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        model = load_sparse_model(seeded_m3, device="cpu")
    finally:
        sys.modules.pop("FlagEmbedding", None)
    assert isinstance(model, BGEM3SparseModel)
    assert len(model.lexical_weights(TEXTS)) == len(TEXTS)
