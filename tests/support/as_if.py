"""Pretend a machine without accelerators whose processor has units for bfloat16, or has none.

``python as_if.py bfloat16 SCRIPT [ARGUMENT ...]`` runs a script so.
"""

from __future__ import annotations

import functools
import os
import runpy
import sys
from pathlib import Path

DTYPES = ("bfloat16", "float32")


def pretend(dtype: str) -> None:
    """Make torch report what the package looks at, for the rest of this process.

    Raises:
        RuntimeError: the package looks at something else, so nothing would be pretended.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    from llama_index_multimodal_rerank.models import hardware

    # torch's compiler looks for what a cached function has
    torch.backends.mps.is_available = functools.cache(lambda: False)
    # AMX is left out: torch's compiler, which asks too, would use instructions that are not there.
    torch.cpu._is_amx_tile_supported = lambda: False
    torch.cpu._is_avx512_bf16_supported = lambda: dtype == "bfloat16"
    device = hardware.default_device()
    found = hardware.default_dtype(device)
    if (device.type, str(found)) != ("cpu", f"torch.{dtype}"):
        raise RuntimeError(f"as if {dtype}: the package still takes {found} on {device}")


if __name__ == "__main__":
    dtype, script, *arguments = sys.argv[1:]
    pretend(dtype)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")
