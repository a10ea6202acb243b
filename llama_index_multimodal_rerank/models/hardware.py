"""Where to run, and in which floating point type."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device to run on.

    Args:
        device: a torch device or its name; None takes the first there is of CUDA, Apple's MPS and the CPU.

    Raises:
        ValueError: the device does not exist, or not on this machine.
    """
    if device is None:
        return default_device()
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"device={str(device)!r} cannot be used on this machine: {error}. "
            f"Use 'cpu', or leave it out to take the best device there is."
        ) from error
    return resolved


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the floating point type to run in.

    Args:
        dtype: ``float32``, ``bfloat16`` or ``float16``, as a torch dtype or its name; None takes bfloat16
            where the hardware multiplies matrices in it, and float32 elsewhere.
        device: where the model runs.

    Raises:
        ValueError: any other type.
    """
    if dtype is None:
        return default_dtype(device)
    resolved = DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if resolved is None or resolved not in DTYPES.values():
        raise ValueError(f"dtype={dtype!r} is not supported; choose one of {', '.join(DTYPES)}.")
    return resolved


def default_device() -> torch.device:
    """Return the best device of this machine."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the floating point type that suits a device of this machine."""
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    # Where bfloat16 is only emulated it is slower than float32, three times on a CPU.
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # the public way to ask, torch.cpu.get_capabilities, is younger than the oldest torch we run on
        amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
        avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
        return bool(amx() or avx512())
    return False
