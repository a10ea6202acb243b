"""A file that is no set of weights says so, says what to do, and runs no code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from llama_index_multimodal_rerank.models.errors import CheckpointError
from llama_index_multimodal_rerank.models.serialization import read_weights

TENSORS = {"a": torch.arange(600.0), "b": torch.ones(2, 3, dtype=torch.float16)}


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.victim,))


def write(path: Path, kind: str) -> Path:
    if kind == "safetensors":
        safetensors.torch.save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pth", ".bin", ""])
def test_format_is_told_by_content(tmp_path: Path, kind: str, suffix: str) -> None:
    tensors = read_weights(write(tmp_path / f"weights{suffix}", kind))
    assert tensors.keys() == TENSORS.keys()
    for key, tensor in TENSORS.items():
        assert torch.equal(tensors[key], tensor)
        assert tensors[key].dtype == tensor.dtype


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_pytorch_file_under_a_safetensors_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CheckpointError, match=r"not a safetensors file\. Rename it to \.pth"):
        read_weights(write(tmp_path / "weights.safetensors", kind))


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, kind: str, kept: float) -> None:
    path = write(tmp_path / "weights", kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CheckpointError, match=r"weights .*(download it again)"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty\. Delete it and download it again"),
        (b"<!DOCTYPE html><html>Not found", r"begins with b'<!DOCTYPE html><'.*download it again"),
        (b"\x00" * 4096, "is no weights file"),
        (b"\x80\x02garbage after a pickle header", "download it again"),
        (b"PK\x03\x04" + b"\x01" * 300, "download it again"),
        (b"\xff" * 7 + b"\x7f{" + b"x" * 300, "not a readable safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer.*git lfs pull"),
    ],
)
def test_garbage(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_weights(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, new_format: bool) -> None:
    path, victim = tmp_path / "weights.pth", tmp_path / "victim"
    torch.save({"a": torch.zeros(1), "bomb": Bomb(victim)}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"not unpickled.*safetensors\.torch\.save_file"):
        read_weights(path)
    assert not victim.exists()
    torch.load(path, weights_only=False)  # the bomb is live
    assert victim.exists()


def test_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "weights.pth", tmp_path / "victim"
    path.write_bytes(pickle.dumps({"bomb": Bomb(victim)}, protocol=2))
    with pytest.raises(CheckpointError):
        read_weights(path)
    assert not victim.exists()


def test_nested_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": TENSORS, "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"'state_dict' \(dict\), 'epoch' \(int\).*of its own"):
        read_weights(path)


def test_list_of_tensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="holds a list; expected a state dict"):
        read_weights(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "nothing.pth")
