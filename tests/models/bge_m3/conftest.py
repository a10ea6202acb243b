"""A tiny BGE-M3, and the two that can compute its lexical weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bge_m3_golden import write_checkpoint


@pytest.fixture(scope="session")
def seeded_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the recorded numbers; do not change it."""
    return write_checkpoint(tmp_path_factory.mktemp("seeded-m3"))
