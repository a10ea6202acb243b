"""Lexical weights by the FlagEmbedding package."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .checkpoint import checkpoint_errors, load_tokenizer


class FlagEmbeddingSparseModel:
    """FlagEmbedding's BGE-M3, reduced to its lexical weights.

    Args:
        model: a ``FlagEmbedding.BGEM3FlagModel``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock = threading.Lock()

    @classmethod
    def from_folder(
        cls, flag_model: Callable[..., Any], folder: Path, *, device: str | None, use_fp16: bool
    ) -> FlagEmbeddingSparseModel:
        """Load a checkpoint.

        Args:
            flag_model: the class ``FlagEmbedding.BGEM3FlagModel``.
            folder: a complete checkpoint.
            device: torch device; None lets FlagEmbedding choose.
            use_fp16: half precision.

        Raises:
            CheckpointError: a file is damaged.
        """
        with checkpoint_errors(folder):
            model = flag_model(str(folder), use_fp16=use_fp16, devices=device)
        model.tokenizer = load_tokenizer(folder)  # its own gives other ids in some releases of transformers
        return cls(model)

    def lexical_weights(
        self, texts: Sequence[str], *, batch_size: int, max_length: int
    ) -> list[dict[int, float]]:
        """Return ``{token id: weight}`` of every text, in the order of the texts."""
        if not texts:
            return []
        with self._lock:  # encode moves the model, and truncation changes the tokenizer
            output = self._model.encode(
                list(texts),
                batch_size=batch_size,
                max_length=max_length,
                return_dense=False,
                return_sparse=True,
                return_colbert_vecs=False,
            )
        return [
            {int(token): float(weight) for token, weight in weights.items()}
            for weights in output["lexical_weights"]
        ]
