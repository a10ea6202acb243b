"""Device and dtype: good defaults, and clear words for what cannot be."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.visualized_bge_golden import TINY_BERT

from llama_index_multimodal_rerank.models.hardware import resolve_device, resolve_dtype
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE

CPU = torch.device("cpu")


@pytest.mark.hardware_defaults
@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ],
)
def test_cpu_runs_in_bfloat16_only_with_units_for_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert resolve_dtype(None, CPU) == expected
    assert resolve_dtype("float16", CPU) == torch.float16


@pytest.mark.hardware_defaults
def test_torch_that_cannot_tell_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert resolve_dtype(None, CPU) == torch.float32


@pytest.mark.hardware_defaults
@pytest.mark.parametrize("supported", [True, False])
def test_cuda_runs_in_bfloat16_where_it_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    expected = torch.bfloat16 if supported else torch.float32
    assert resolve_dtype(None, torch.device("cuda")) == expected


@pytest.mark.hardware_defaults
def test_mps_runs_in_float32() -> None:
    assert resolve_dtype(None, torch.device("mps")) == torch.float32


@pytest.mark.parametrize("dtype", ["int8", "float64", "fp32", "", torch.float64, torch.int8])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"is not supported; choose one of float32, bfloat16, float16"):
        resolve_dtype(dtype, CPU)


@pytest.mark.hardware_defaults
@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_best_device(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device(None) == torch.device(expected)


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_device_is_settable(device: Any) -> None:
    assert resolve_device(device) == CPU


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_device_that_is_not_there(device: str, model_folder: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used on this machine"):
        VisualizedBGE.from_pretrained(model_folder(TINY_BERT), device=device)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("operator torchvision::nms does not exist"), ImportError("No module named 'timm'")],
)
def test_timm_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, model_folder: Callable[[str], Path], error: Exception
) -> None:
    original = builtins.__import__

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("timm"):
            raise error
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(
        ImportError, match=r"import timm` failed: .*pip install -U torch torchvision"
    ) as caught:
        VisualizedBGE.from_pretrained(model_folder(TINY_BERT))
    assert str(error) in str(caught.value)
    assert caught.value.__cause__ is error


def test_import_is_light() -> None:
    code = (
        "import sys, llama_index_multimodal_rerank.models.visualized_bge\n"
        "heavy = [name for name in ('timm', 'torchvision', 'transformers') if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
