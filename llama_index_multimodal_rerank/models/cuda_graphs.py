"""A model on batches of one shape, as CUDA graphs: what python needs to launch a batch, it needs once.

A batch of 32 pictures is 18 ms of launching, all of it holding the GIL, so that the threads that decode the
next ones wait; its graph is one call.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
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


class CapturedFunctions:
    """Graphs by key: captured when a key comes for the second time, and not more than a number of them.

    The graph that was not used for longest makes room for a new one. Where capturing fails, there are no more
    graphs from then on, with one line in the log. Not safe to call from two threads at a time.

    Args:
        capture: captures a function.
        most: graphs to keep.

    Attributes:
        graphs: those that are kept, the one that was used last at the end.
    """

    def __init__(self, capture: Capture, *, most: int) -> None:
        self.graphs: OrderedDict[Hashable, CapturedBatch] = OrderedDict()
        self._capture = capture
        self._most = most
        self._seen: Counter[Hashable] = Counter()
        self._works = True

    def get(self, key: Hashable, function: BatchFunction, batch: torch.Tensor) -> CapturedBatch | None:
        """Return the graph of a key, if there is one or its time has come.

        Args:
            key: what the function and the shape of its input are told by.
            function: what to capture. It must not wait for the device, nor copy from the host.
            batch: an input of it.
        """
        if key not in self.graphs:
            self._seen[key] += 1
            if self._seen[key] < 2 or not self._works or not self._add(key, function, batch):
                return None
        self.graphs.move_to_end(key)
        return self.graphs[key]

    def clear(self) -> None:
        """Forget all graphs, as when functions or what they read have changed."""
        self.graphs.clear()
        self._seen.clear()

    def _add(self, key: Hashable, function: BatchFunction, batch: torch.Tensor) -> bool:
        try:
            graph = self._capture(function, batch)
        except RuntimeError as error:  # torch's errors of CUDA, memory that is too small among them
            self._works = False
            logger.warning("No CUDA graph could be captured (%s); batches are launched one by one.", error)
            return False
        while len(self.graphs) >= self._most:
            self.graphs.popitem(last=False)
        self.graphs[key] = graph
        return True


class GraphCache:
    """Runs a function of a batch: captured where its size comes again, plainly where it does not.

    A batch that has no graph, as the last of a list, is filled up to the next captured size if that is at
    most twice its own; its rows do not depend on each other. For the rest see :class:`CapturedFunctions`.

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
        self._captured = CapturedFunctions(CudaCapture(device) if capture is None else capture, most=most)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the function returns, in memory of its own.

        Args:
            batch: on the host or the device, (batch, ...); shapes and dtypes are always the same but for
                the first dimension.
        """
        graph = self._captured.get(self._fitting_size(len(batch)), self._function, batch)
        if graph is None:
            return self._function(batch.to(self._device, non_blocking=True))
        graph.inputs[: len(batch)].copy_(batch, non_blocking=True)  # the other rows are of batches before
        graph.replay()
        return graph.outputs[: len(batch)].clone()  # the next replay writes over it

    def clear(self) -> None:
        """Forget all graphs, as when the function has changed."""
        self._captured.clear()

    @property
    def sizes(self) -> list[int]:
        """Sizes of the graphs that are kept, the one that was used last at the end."""
        return [size for size in self._captured.graphs if isinstance(size, int)]

    def _fitting_size(self, count: int) -> int:
        return min((size for size in self.sizes if count <= size <= 2 * count), default=count)


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
