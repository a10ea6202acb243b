"""Processes that make batches: a GPU would wait for one thread that does."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from typing_extensions import Self

MakeBatch = Callable[[np.random.Generator], Any]


class BatchProcesses:
    """Makes the batches of several stages, in the same processes. Use it in a ``with`` statement.

    Args:
        makers: what makes a batch from random numbers, by name.
        count: number of processes; with 0, batches are made where they are asked for.
    """

    def __init__(self, makers: Mapping[str, MakeBatch], count: int) -> None:
        self.count = count
        self._makers = dict(makers)
        self._pool: ProcessPoolExecutor | None = None

    def __getitem__(self, name: str) -> MakeBatch:
        """Return what makes the batches of a name. Any number of threads may call it."""
        return partial(self._make, name) if self.count else self._makers[name]

    def _make(self, name: str, rng: np.random.Generator) -> Any:
        if self._pool is None:
            raise RuntimeError("the processes run inside a 'with' statement only")
        made: bytes = self._pool.submit(_make, name, rng).result()
        return pickle.loads(made)  # noqa: S301 - by a process of our own

    def __enter__(self) -> Self:
        if self.count:
            # Spawned, because a process that has used torch cannot be forked safely.
            self._pool = ProcessPoolExecutor(
                self.count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_remember,
                initargs=(self._makers,),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


_makers: dict[str, MakeBatch] = {}
"""What a process was given when it began."""


def _remember(makers: dict[str, MakeBatch]) -> None:
    torch.set_num_threads(1)
    _makers.update(makers)


def _make(name: str, rng: np.random.Generator) -> bytes:
    # As bytes: torch would hand each tensor over as an open file, which took seconds a batch on one machine.
    return pickle.dumps(_makers[name](rng))
