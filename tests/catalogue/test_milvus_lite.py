"""What docs/catalogues.md promises, on a Milvus Lite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.catalogue_behaviour import *  # noqa: F403 (the tests of every Milvus)
from support.milvus_behaviour import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "m.db"))
