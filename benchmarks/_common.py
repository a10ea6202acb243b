"""What the benchmarks share: the machine's ceiling, clocks, memory, arguments, tables."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from llama_index_multimodal_rerank.models.hardware import resolve_device, resolve_dtype

T = TypeVar("T")
MIB = 2**20
DIFFERENT_PICTURES = 256


class Timed(NamedTuple):
    """A result and how long it took."""

    seconds: float
    value: Any


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add what every benchmark of a model takes, parse, and resolve device and dtype."""
    parser.add_argument("--device", help="torch device; default: the best one there is")
    parser.add_argument("--dtype", help="of our side; default: bfloat16 where the hardware computes in it")
    parser.add_argument("--tiny", action="store_true", help="tiny models: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    options.device = resolve_device(options.device)
    options.dtype = resolve_dtype(options.dtype, options.device)
    return options


# -- clocks ---------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device) -> Timed:
    """Call once; the clock stops when the device is done."""
    synchronize(device)
    started = time.perf_counter()
    value = call()
    synchronize(device)
    return Timed(time.perf_counter() - started, value)


def alternate(calls: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each call.

    The calls take turns, so that a machine that becomes slower or faster on the way does so for all.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    with tqdm(total=repeats * len(calls), desc="Measuring", leave=False) as progress:
        for _ in range(repeats):
            for name, call in calls.items():
                progress.set_postfix_str(name)
                times[name].append(timed(call, device).seconds)
                progress.update()
    return {name: statistics.median(each) for name, each in times.items()}


# -- ceilings -------------------------------------------------------------------------------------


def matmul_ceiling(dtype: torch.dtype, device: torch.device, size: int, repeats: int = 5) -> float:
    """Return the FLOP/s of the product of two matrices of ``size`` x ``size``, the best of some.

    What a model reaches of it is its model-FLOPs utilisation (MFU).
    """
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timed(lambda: left @ right, device)
    best = min(timed(lambda: left @ right, device).seconds for _ in range(repeats))
    return 2 * size**3 / best


def ceilings(dtypes: Sequence[torch.dtype], device: torch.device, *, tiny: bool) -> dict[torch.dtype, float]:
    """Return :func:`matmul_ceiling` by dtype, in a size that the device is busy with."""
    size = 256 if tiny else 8192 if device.type == "cuda" else 3072
    return {dtype: matmul_ceiling(dtype, device, size) for dtype in dict.fromkeys(dtypes)}


def flops_of(call: Callable[[], Any]) -> int:
    """Count the floating point operations of matrix products, convolutions and attention in a call.

    Attention counts as two dense products, whatever a mask leaves out of them.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # torch's own counter passes over the kernel for CPUs, on releases that do not happen to take it apart
    kernels = {
        getattr(torch.ops.aten, name): _attention_flops
        for name in (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        )
    }
    with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        call()
    return int(counter.get_total_flops())


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_args: Any, **_options: Any
) -> int:
    """Count the products of scores and weighted sum; all are shapes, (batch, heads, tokens, width)."""
    batch, heads, tokens, width = query
    return 2 * batch * heads * tokens * key[2] * (width + value[3])


# -- memory ---------------------------------------------------------------------------------------


def peak_rss() -> int:
    """Return the most memory, in bytes, that this process ever had resident, mapped files included."""
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; the counter of getrusage knows its parent's peak, too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def peak_device_memory(device: torch.device) -> Iterator[dict[str, int]]:
    """Fill in ``peak_device_bytes`` of what runs inside; nothing on a CPU."""
    found: dict[str, int] = {}
    if device.type != "cuda":
        yield found
        return
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    yield found
    found["peak_device_bytes"] = torch.cuda.max_memory_allocated(device)


# -- pictures -------------------------------------------------------------------------------------


def draw_picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw coloured blobs with some grain, so that a JPEG of it is about as large as a photograph's."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 8, (size[1], size[0], 1))
    return Image.fromarray((np.asarray(blobs) + grain).clip(0, 255).astype(np.uint8))


def write_jpegs(folder: Path, count: int, size: tuple[int, int], *, first_seed: int = 0) -> list[Path]:
    """Write JPEG files and return their paths in order; the first 256 differ, the others are their copies."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{first_seed + i:07}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        if i < DIFFERENT_PICTURES:
            draw_picture(first_seed + i, size).save(path, quality=90)
        else:
            shutil.copyfile(paths[i % DIFFERENT_PICTURES], path)
    return paths


# -- reports --------------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, Any]:
    """Say what the figures were measured on."""
    import transformers

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows, the first of them the head, in columns; the first column on the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *others = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
    print()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def keeper(result: dict[str, Any], report: dict[str, Any], path: Path | None) -> Callable[..., None]:
    """Return a function that adds parts to a result, says so, and writes the report that it belongs to.

    A run that is interrupted, as by the end of the time on a machine that was lent, leaves what it has.
    """
    started = time.monotonic()

    def keep(**parts: Any) -> None:
        result.update(parts)
        write_report(path, report)
        tqdm.write(f"{time.monotonic() - started:.0f} s: {json.dumps(parts)}", file=sys.stderr)

    return keep


def write_report(path: Path | None, report: dict[str, Any]) -> None:
    """Write the figures as JSON, if a file was named."""
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
