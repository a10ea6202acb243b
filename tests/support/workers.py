"""Tests in several processes, ``pytest -n auto``: how many there are, each with its share of the cores."""

from __future__ import annotations

import os

import pytest
import torch

MEMORY_PER_WORKER = 4 * 2**30
"""Bytes: a worker was seen with 3.3 GB, and its tests start scripts."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for ``-n auto``: one for each core, as far as memory allows."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # this system does not say
        return _cores()
    return max(1, min(_cores(), memory // MEMORY_PER_WORKER))


def pytest_configure() -> None:
    """Give torch, in a worker and in what its tests start, the worker's share of the cores."""
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        threads = max(1, _cores() // int(workers))
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
