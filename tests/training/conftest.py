"""Recipes are in the repository, not in the package: they are imported from beside the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Behind all else, so that the package is the installed one.
sys.path.append(str(Path(__file__).parents[2]))


@pytest.fixture(autouse=True, scope="module")  # before the modules' own trainings
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
