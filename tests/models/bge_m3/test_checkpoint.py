"""Checkpoints that are not complete, or damaged, say so before any number is computed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from llama_index_multimodal_rerank.models.bge_m3.loading import load_sparse_model
from llama_index_multimodal_rerank.models.errors import CheckpointError


@pytest.fixture
def folder(seeded_m3: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(seeded_m3, tmp_path / "m3"))


@pytest.fixture(params=["flag_embedding", "native"])
def load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], object]:
    if request.param == "native":
        monkeypatch.setitem(sys.modules, "FlagEmbedding", None)
    else:
        try:
            import FlagEmbedding  # noqa: F401
        except Exception as error:
            pytest.skip(f"FlagEmbedding cannot be imported: {error}")
    return lambda folder: load_sparse_model(folder, device="cpu")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sparse_linear.pt"], r"not a complete BGE-M3 checkpoint: sparse_linear\.pt missing"),
        (["colbert_linear.pt"], r": colbert_linear\.pt missing"),
        (["config.json"], r": config\.json missing"),
        (
            ["tokenizer.json", "sentencepiece.bpe.model"],
            r": tokenizer\.json or sentencepiece\.bpe\.model m",
        ),
        (["model.safetensors"], r": model\.safetensors or .*pytorch_model\.bin.* missing"),
        (["config.json", "sparse_linear.pt"], r": config\.json and sparse_linear\.pt missing"),
    ],
)
def test_missing_files_are_named(
    folder: Path, load: Callable[[Path], object], names: list[str], message: str
) -> None:
    for name in names:
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        load(folder)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("spoil", [truncate, empty])
@pytest.mark.parametrize(
    "name", ["sparse_linear.pt", "colbert_linear.pt", "config.json", "tokenizer.json", "model.safetensors"]
)
def test_damaged_files_are_named(
    folder: Path, load: Callable[[Path], object], name: str, spoil: Callable[[Path], None]
) -> None:
    spoil(folder / name)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    if name.endswith(".pt"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(1, 5), "bias": torch.zeros(1)}, r"\(1, 5\).*config\.json"),
        ({"weight": torch.zeros(1, 64)}, r"holds \{'weight': \(1, 64\)\}"),
        ({"weight": torch.full((1, 64), torch.inf), "bias": torch.zeros(1)}, "not finite"),
        (torch.nn.Linear(64, 1), "pickled objects"),
        ([1.0], "holds a list"),
    ],
)
def test_a_sparse_layer_that_does_not_fit_is_refused(
    folder: Path, load: Callable[[Path], object], tensors: object, message: str
) -> None:
    torch.save(tensors, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder)
    assert "sparse_linear.pt" in str(caught.value)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt"])
def test_pickled_code_does_not_run(
    folder: Path, load: Callable[[Path], object], tmp_path: Path, name: str
) -> None:
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload(tmp_path / "trace")}, folder / name)
    with pytest.raises(CheckpointError):
        load(folder)
    assert not (tmp_path / "trace").exists()


def test_a_checkpoints_own_code_does_not_run_and_is_not_asked_about(
    folder: Path, load: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')", encoding="utf-8")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}, "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    with pytest.raises(CheckpointError):
        load(folder)
    assert not asked
    assert not (tmp_path / "trace").exists()


def test_tensors_that_are_missing_are_not_made_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "FlagEmbedding", None)
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    without_pooler = {key: tensor for key, tensor in tensors.items() if not key.startswith("pooler")}
    safetensors.torch.save_file(without_pooler, file, metadata={"format": "pt"})
    load_sparse_model(folder, device="cpu")  # which is not used
    del without_pooler["encoder.layer.1.output.dense.bias"]
    safetensors.torch.save_file(without_pooler, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack encoder\.layer\.1\.output\.dense\.bias\."):
        load_sparse_model(folder, device="cpu")


def test_a_checkpoint_of_several_weights_files(folder: Path, load: Callable[[Path], object]) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"model-1.safetensors": list(tensors)[::2], "model-2.safetensors": list(tensors)[1::2]}
    for name, keys in parts.items():
        safetensors.torch.save_file(
            {key: tensors[key] for key in keys}, folder / name, metadata={"format": "pt"}
        )
    index = {"metadata": {}, "weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    load(folder)
