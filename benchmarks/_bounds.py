"""What bounds the rate of embedding: decoding on all cores, the module alone, launching; and operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from llama_index_multimodal_rerank.embeddings.local_model import ImageTextModel
from llama_index_multimodal_rerank.models.prefetch import WORKERS

from ._common import synchronize, timed

OPERATIONS = 10


def decode_rates(model: ImageTextModel, files: Sequence[Path]) -> dict[str, float]:
    """Return pictures decoded and cropped per second, by one thread and by as many as the encoder takes."""

    def prepare(path: Path) -> None:
        with Image.open(path) as image:
            model.preprocess(image)

    cpu = torch.device("cpu")
    alone = timed(lambda: [prepare(path) for path in files], cpu).seconds
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(prepare, files[:WORKERS]))  # threads are started
        together = timed(lambda: list(pool.map(prepare, files)), cpu).seconds
    return {"one_thread": len(files) / alone, "all_cores": len(files) / together, "threads": WORKERS}


def bound(decoded: float, model: float, ours: float, device: torch.device) -> dict[str, Any]:
    """Compare a rate with what decoding and the module allow, in pictures per second.

    On a GPU they run beside each other, so the slower is the bound; on a CPU they share the cores, so the
    times of both add up.
    """
    together = 1 / (1 / decoded + 1 / model) if device.type == "cpu" else min(decoded, model)
    return {
        "pictures_per_s": together,
        "by": "decoding" if decoded < model else "the model",
        "reached": ours / together,
    }


def launch_share(call: Callable[[], Any], device: torch.device, repeats: int = 5) -> float | None:
    """Return the share of a batch's time for which python is busy launching it, and so holds the GIL.

    1 and more: the device waits for python. None on a CPU, where a call returns when the work is done, and
    what takes long runs without the GIL.
    """
    if device.type == "cpu":
        return None
    call()
    launching, whole = [], []
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        call()
        launching.append(time.perf_counter() - started)
        synchronize(device)
        whole.append(time.perf_counter() - started)
    return min(launching) / min(whole)


def costly_operations(call: Callable[[], Any], device: torch.device) -> list[dict[str, Any]]:
    """Return the ten operations that most time goes into, by torch's profiler, on the GPU if there is one."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    call()
    with profile(activities=activities) as profiler:
        call()
        synchronize(device)
    which = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = [(float(getattr(event, which)), event) for event in profiler.key_averages()]
    total = sum(microseconds for microseconds, _ in events)
    events.sort(key=lambda pair: pair[0], reverse=True)
    return [
        {
            "operation": event.key,
            "share": microseconds / total,
            "milliseconds": microseconds / 1000,
            "calls": event.count,
        }
        for microseconds, event in events[:OPERATIONS]
    ]


def as_markdown(title: str, operations: Sequence[dict[str, Any]]) -> str:
    """Return a table of :func:`costly_operations`."""
    rows = [
        f"| `{each['operation'][:80]}` | {each['share']:.1%} | {each['milliseconds']:.1f} | {each['calls']} |"
        for each in operations
    ]
    return "\n".join(
        [f"## {title}", "", "| operation | share | ms | calls |", "|---|---|---|---|", *rows, ""]
    )
