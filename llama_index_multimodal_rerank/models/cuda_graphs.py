"""A model on batches of one shape, as CUDA graphs: what python needs to launch a batch, it needs once.

A batch of 32 pictures is 18 ms of launching, all of it holding the GIL, so that the threads that decode the
next ones wait; its graph is one call.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch

logger = logging.getLogger(__name__)

MOST_GRAPHS = 4
"""Graphs kept; each holds its input, its output and what it was captured with."""


class CapturedBatch(NamedTuple):
    """A captured run on a batch.

    Attributes:
        inputs: what ``replay`` reads, (batch, ...).
        outputs: what ``replay`` writes, (batch, ...).
        replay: runs the model on ``inputs``.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    replay: Callable[[], object]


BatchFunction: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Capture: TypeAlias = Callable[[BatchFunction, torch.Tensor], CapturedBatch]


class GraphCache:
    """Runs a function of a batch: captured where its size comes again, plainly where it does not.

    A size is captured when it comes for the second time. A batch that has no graph, as the last of a list,
    is filled up to the next captured size if that is at most twice its own; its rows do not depend on each
    other. The graph that was not used for longest makes room for a new one. Where capturing fails, everything
    is run plainly from then on, with one line in the log. Not safe to call from two threads at a time.

    Args:
        function: takes a batch on the device and returns as many rows. It must not wait for the device, nor
            copy from the host.
        device: where it runs.
        capture: captures it. Default: :class:`CudaCapture`.
        most: graphs to keep.
    """

    def __init__(
        self,
        function: BatchFunction,
        device: torch.device,
        *,
        capture: Capture | None = None,
        most: int = MOST_GRAPHS,
    ) -> None:
        self._function = function
        self._device = device
        self._capture = CudaCapture(device) if capture is None else capture
        self._most = most
        self._graphs: OrderedDict[int, CapturedBatch] = OrderedDict()
        self._seen: Counter[int] = Counter()
        self._works = True

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the function returns, in memory of its own.

        Args:
            batch: on the host or the device, (batch, ...); shapes and dtypes are always the same but for
                the first dimension.
        """
        size = self._fitting_size(len(batch))
        if size is None and self._works:
            self._seen[len(batch)] += 1
            if self._seen[len(batch)] > 1:
                size = self._add_graph(batch)
        if size is None:
            return self._function(batch.to(self._device, non_blocking=True))
        graph = self._graphs[size]
        self._graphs.move_to_end(size)
        graph.inputs[: len(batch)].copy_(batch, non_blocking=True)  # the other rows are of batches before
        graph.replay()
        return graph.outputs[: len(batch)].clone()  # the next replay writes over it

    def clear(self) -> None:
        """Forget all graphs, as when the function has changed."""
        self._graphs.clear()
        self._seen.clear()

    def _fitting_size(self, count: int) -> int | None:
        return min((size for size in self._graphs if count <= size <= 2 * count), default=None)

    def _add_graph(self, batch: torch.Tensor) -> int | None:
        try:
            graph = self._capture(self._function, batch)
        except RuntimeError as error:  # torch's errors of CUDA, memory that is too small among them
            self._works = False
            logger.warning("No CUDA graph could be captured (%s); batches are launched one by one.", error)
            return None
        while len(self._graphs) >= self._most:
            self._graphs.popitem(last=False)
        self._graphs[len(batch)] = graph
        return len(batch)


class CudaCapture:
    """Captures functions on a GPU, all of them in one pool of memory.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, function: BatchFunction, batch: torch.Tensor) -> CapturedBatch:
        """Capture a run on a batch of this shape; nothing of the batch is kept.

        Raises:
            RuntimeError: the function does what a graph cannot hold, or memory is too small.
        """
        with torch.cuda.device(self._device):
            inputs = batch.to(self._device, copy=True)
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call, unused-ignore]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries set themselves up when they are first called
                function(inputs)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the GPU meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function(inputs)
        return CapturedBatch(inputs, outputs, graph.replay)
