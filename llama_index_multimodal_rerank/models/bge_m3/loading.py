"""Who computes the lexical weights: FlagEmbedding where it imports, else the native model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .checkpoint import check_checkpoint
from .flag_embedding import FlagEmbeddingSparseModel
from .sparse import BGEM3SparseModel

logger = logging.getLogger(__name__)


class SparseModel(Protocol):
    """A loaded model that computes lexical weights; safe to call from several threads."""

    def lexical_weights(
        self, texts: Sequence[str], *, batch_size: int, max_length: int
    ) -> list[dict[int, float]]:
        """Return ``{token id: weight}`` of every text, in the order of the texts."""
        ...


def load_sparse_model(folder: Path, *, device: str | None = None, use_fp16: bool = False) -> SparseModel:
    """Load a checkpoint into FlagEmbedding, or natively where FlagEmbedding cannot be imported.

    Both compute the same numbers.

    Args:
        folder: a checkpoint of BGE-M3.
        device: torch device; None takes the best there is.
        use_fp16: half precision; see :class:`.sparse.BGEM3SparseModel`.

    Raises:
        FileNotFoundError: files of the checkpoint are missing.
        CheckpointError: a file is damaged, or files do not belong together.
        ValueError: the device cannot be used.
    """
    check_checkpoint(folder)
    flag_model = _import_flag_embedding()
    if flag_model is None:
        return BGEM3SparseModel.from_folder(folder, device=device, use_fp16=use_fp16)
    return FlagEmbeddingSparseModel.from_folder(flag_model, folder, device=device, use_fp16=use_fp16)


def _import_flag_embedding() -> Any | None:
    try:
        from FlagEmbedding import BGEM3FlagModel
    # It imports modules that transformers removes from release to release (ImportError), and packages that
    # fail in ways of their own where another of their neighbours has moved.
    except Exception as error:
        logger.info("FlagEmbedding cannot be imported (%s); BGE-M3 runs without it.", error)
        return None
    return BGEM3FlagModel
