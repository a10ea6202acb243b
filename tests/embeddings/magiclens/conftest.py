"""MagicLensEmbedding on the tiny golden model."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import magiclens_golden
from support.magiclens_golden import TINY

from llama_index_multimodal_rerank import (
    MagicLensEmbedding,
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint in the released format."""
    return magiclens_golden.write_folder(tmp_path_factory.mktemp("magiclens") / "model", TINY[0])


@pytest.fixture(scope="session")
def lens(checkpoint: Path) -> MagicLensEmbedding:
    """A loaded tiny model; do not change its fields."""
    return MagicLensEmbedding(model_name=str(checkpoint), device="cpu", dtype="float32")
