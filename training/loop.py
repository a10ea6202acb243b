"""The training loop of both recipes: seeded, resumable, with a progress bar."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from llama_index_multimodal_rerank.models.prefetch import prefetch_map

logger = logging.getLogger(__name__)

B = TypeVar("B")


@dataclass(frozen=True)
class Schedule:
    """Learning rate over a stage: linear warm-up, a plateau, then cosine down to zero.

    Attributes:
        steps: steps of the stage.
        learning_rate: the highest.
        warm_up: steps until it is reached.
        steady: share of the steps before it falls.
    """

    steps: int
    learning_rate: float
    warm_up: int = 100
    steady: float = 0.0

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / max(1, min(self.warm_up, self.steps // 4)))
        fallen = max(0.0, (step / max(1, self.steps) - self.steady) / (1 - self.steady))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * fallen))


@dataclass
class Stage(Generic[B]):
    """One stage of a recipe.

    Attributes:
        name: names its checkpoint; also part of its seeds.
        schedule: learning rate and number of steps.
        trained: modules whose weights change.
        make_batch: from a seeded generator to a batch. Called ahead of need in a thread of its own.
        loss: from a batch to the loss and figures to report.
        seed: seed of the recipe. The batch of a step depends on seed, name and step alone.
        weight_decay: of AdamW, for matrices.
        clip: largest norm of the gradient.
    """

    name: str
    schedule: Schedule
    trained: nn.Module
    make_batch: Callable[[np.random.Generator], B]
    loss: Callable[[B], tuple[torch.Tensor, dict[str, float]]]
    seed: int
    weight_decay: float = 0.05
    clip: float = 1.0
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def run(stage: Stage[B], folder: Path, *, save_every: int = 100) -> Stage[B]:
    """Train a stage, from its last checkpoint on if there is one.

    Args:
        stage: what to train; weights are changed in place.
        folder: where checkpoints lie; the finished stage's is kept.
        save_every: steps between checkpoints.

    Returns:
        The stage, with ``curve`` (mean figures of every ``save_every`` steps) and ``seconds`` filled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage.name}.pt"
    matrices = [p for p in stage.trained.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in stage.trained.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": stage.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    first = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        stage.trained.load_state_dict(saved["weights"])
        first, stage.curve, stage.seconds = saved["step"], saved["curve"], saved["seconds"]
        if first < stage.schedule.steps:
            optimizer.load_state_dict(saved["optimizer"])
        logger.info("%s: continued at step %d", stage.name, first)
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    bar = tqdm(total=stage.schedule.steps, initial=first, desc=stage.name, mininterval=5)
    started = time.monotonic()
    for step, batch in _batches(stage, first):
        for group in optimizer.param_groups:
            group["lr"] = stage.schedule.at(step)
        loss, figures = stage.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        # Not of all parameters: those of an earlier stage may have gradients left.
        nn.utils.clip_grad_norm_([*matrices, *others], stage.clip)
        optimizer.step()
        for name, value in {"loss": loss.item(), **figures}.items():
            if math.isfinite(value):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1
        bar.update()
        if (step + 1) % save_every == 0 or step + 1 == stage.schedule.steps:
            means = {name: round(total / counts[name], 4) for name, total in sums.items()}
            stage.curve.append({"step": step + 1, **means})
            bar.set_postfix(means)
            logger.info("%s %s", stage.name, stage.curve[-1])
            sums, counts = {}, {}
            seconds = stage.seconds + time.monotonic() - started
            _save(path, stage, optimizer, step + 1, seconds)
    bar.close()
    if first < stage.schedule.steps:
        stage.seconds += time.monotonic() - started
    return stage


def _batches(stage: Stage[B], first: int) -> Iterator[tuple[int, B]]:
    """Yield the batches of the steps, made one ahead."""

    def make(step: int) -> B:
        key = [stage.seed, *stage.name.encode(), step]
        return stage.make_batch(np.random.default_rng(key))

    steps = range(first, stage.schedule.steps)
    with closing(prefetch_map(make, steps, ahead=1, workers=1)) as batches:
        yield from zip(steps, batches, strict=True)


def _save(path: Path, stage: Stage[B], optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
    part = path.with_suffix(".part")
    torch.save(
        {
            "weights": stage.trained.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "curve": stage.curve,
            "seconds": seconds,
        },
        part,
    )
    part.replace(path)  # a kill leaves the last checkpoint whole
