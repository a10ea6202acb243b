"""Lexical weights equal those that FlagEmbedding computed with transformers 5.23."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.bge_m3_golden import read_json, write_checkpoint

from llama_index_multimodal_rerank.models.bge_m3.flag_embedding import FlagEmbeddingSparseModel
from llama_index_multimodal_rerank.models.bge_m3.loading import SparseModel
from llama_index_multimodal_rerank.models.bge_m3.sparse import BGEM3SparseModel

TEXTS: list[str] = read_json("cases.json")["texts"]
CASES: list[dict[str, Any]] = read_json("cases.json")["cases"]
WEIGHTS: dict[str, list[dict[str, float]]] = read_json("weights.json")["weights"]


def check(model: SparseModel, case: dict[str, Any]) -> None:
    computed = model.lexical_weights(TEXTS, batch_size=case["batch_size"], max_length=case["max_length"])
    assert len(computed) == len(TEXTS)
    for text, weights, recorded in zip(TEXTS, computed, WEIGHTS[case["id"]], strict=True):
        assert weights == pytest.approx({int(k): v for k, v in recorded.items()}, abs=1e-5), text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_native_weights_are_flag_embeddings(seeded_m3: Path, case: dict[str, Any]) -> None:
    check(BGEM3SparseModel.from_folder(seeded_m3, device="cpu", use_fp16=case["use_fp16"]), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_flag_embedding_gives_the_same_with_every_transformers(seeded_m3: Path, case: dict[str, Any]) -> None:
    try:
        from FlagEmbedding import BGEM3FlagModel
    except Exception as error:
        pytest.skip(f"FlagEmbedding cannot be imported: {error}")
    model = FlagEmbeddingSparseModel.from_folder(
        BGEM3FlagModel, seeded_m3, device="cpu", use_fp16=case["use_fp16"]
    )
    check(model, case)


def test_weights_of_pytorchs_format_are_read_as_well(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, weights="pytorch_model.bin")
    assert not list(folder.glob("*.safetensors"))
    check(BGEM3SparseModel.from_folder(folder, device="cpu"), CASES[0])


def test_a_checkpoint_with_a_sentencepiece_model_alone(seeded_m3: Path, tmp_path: Path) -> None:
    # transformers makes a tokenizer of it; what its normaliser lacks in 5.0 to 5.2 does not matter here.
    folder = Path(shutil.copytree(seeded_m3, tmp_path / "m3"))
    (folder / "tokenizer.json").unlink()
    model = BGEM3SparseModel.from_folder(folder, device="cpu")
    assert model.lexical_weights(TEXTS[:2])[1] == pytest.approx(
        {int(k): v for k, v in WEIGHTS[CASES[0]["id"]][1].items()}, abs=1e-5
    )
