"""What bounds the time of a query: the arithmetic of reading, the weights of each step, or all else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from llama_index_multimodal_rerank.vlm.decoding import PrefilledPrompt

from ._common import flops_of, timed

COPIED = 2**28
"""Bytes of the copy that tells the speed of memory."""


def memory_speed(device: torch.device, *, tiny: bool, repeats: int = 5) -> float:
    """Return bytes per second that a large copy reads and writes, the best of some."""
    source = torch.zeros(2**20 if tiny else COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timed(lambda: target.copy_(source), device)
    best = min(timed(lambda: target.copy_(source), device).seconds for _ in range(repeats))
    return 2 * source.nbytes / best


def step_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of the weights that each step of the decoder reads."""
    return sum(weight.nbytes for name, weight in model.named_parameters() if "embed_tokens" not in name)


def bound_of(
    call: Callable[[], Any], model: Any, device: torch.device, *, ceiling: float, speed: float
) -> dict[str, Any]:
    """Take a query apart, with the device waited for at every seam.

    Args:
        call: reranks a query; is called twice, for the operations and for the seconds.
        model: the model that is asked.
        device: where it is.
        ceiling: FLOP/s that matrix products reach.
        speed: bytes per second that a copy reaches.

    Returns:
        Seconds and shares by part; the greatest part; steps; the fraction of ``ceiling`` that reading
        reached, and of ``speed`` that the weights of the steps did.
    """
    flops: Counter[str] = Counter()

    def counted(part: str, plain: Callable[[], Any]) -> None:
        if part == "reading":
            flops[part] += flops_of(plain)
        else:
            plain()

    with _parts(model, counted):
        call()
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def clocked(part: str, plain: Callable[[], Any]) -> None:
        seconds[part] += timed(plain, device).seconds
        calls[part] += 1

    with _parts(model, clocked):
        whole = timed(call, device).seconds
    parts = {name: seconds[name] for name in ("reading", "steps")}
    parts["outside the model"] = max(whole - sum(parts.values()), 0.0)
    reached = step_bytes(model) * calls["steps"] / seconds["steps"] if calls["steps"] else None
    return {
        "seconds": parts,
        "share": {name: each / whole for name, each in parts.items()},
        "by": max(parts, key=parts.__getitem__),
        "steps": calls["steps"],
        "reading_tflop": flops["reading"] / 1e12,
        "reading_mfu": flops["reading"] / seconds["reading"] / ceiling,
        "weights_of_memory_speed": reached and reached / speed,
    }


@contextmanager
def _parts(model: Any, around: Callable[[str, Callable[[], Any]], None]) -> Iterator[None]:
    """Run what reads pictures and prompts, and what goes on from there, inside of a function."""

    def inside(part: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            values: list[Any] = []
            around(part, lambda: values.append(plain(*args, **options)))
            return values[0]

        return run

    features = inside("reading", model.get_image_features)
    with (
        patch.object(PrefilledPrompt, "__init__", inside("reading", PrefilledPrompt.__init__)),
        patch.object(PrefilledPrompt, "_read_more", inside("steps", PrefilledPrompt._read_more)),
        patch.object(model, "get_image_features", features),
    ):
        yield


def describe_bound(name: str, bound: dict[str, Any]) -> str:
    """Say in a line what bounds a mode."""
    shares = ", ".join(f"{part} {share:.0%}" for part, share in bound["share"].items())
    reading = f"reading at {bound['reading_mfu']:.2f} of the matrix products' ceiling"
    steps = (
        f", {bound['steps']} steps at {bound['weights_of_memory_speed']:.2f} of the speed of memory"
        if bound["steps"]
        else ""
    )
    return f"{name}: {shares}; bound by {bound['by']}; {reading}{steps}"
