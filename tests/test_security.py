"""What SECURITY.md says of the source, and that the tests it names exist."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from support.tiny_phi3_vision import write_folder

from llama_index_multimodal_rerank import LocalPhi3Vision, VisualizedBGEEmbedding

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


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (str(self.marker), "w"))


def test_no_checkpoint_runs_code(tmp_path: Path, tiny_checkpoint: Path) -> None:
    marker = tmp_path / "executed"
    bge, phi3 = tmp_path / "bge", tmp_path / "phi3"
    shutil.copytree(tiny_checkpoint, bge)
    phi3.mkdir()
    write_folder(phi3)
    for folder, name in ((bge, "model.pth"), (phi3, "pytorch_model.bin")):
        for weights in folder.glob("*.safetensors*"):
            weights.unlink()
        torch.save({"weight": Evil(marker)}, folder / name)
    with pytest.raises(ValueError, match="not unpickled"):
        _ = VisualizedBGEEmbedding(model_name=str(bge), device="cpu").model
    with pytest.raises((OSError, ValueError, pickle.UnpicklingError)):
        LocalPhi3Vision(str(phi3), device="cpu", num_crops=1).load()
    assert not marker.exists()
    with (bge / "model.pth").open("rb") as file:  # the trap works
        torch.load(file, weights_only=False)
    assert marker.exists()


def test_the_tests_that_security_md_names_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "tests" / name).exists(), name
