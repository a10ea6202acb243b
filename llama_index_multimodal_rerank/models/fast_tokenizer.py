"""Texts to token ids, for any model with a ``tokenizer.json``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import ModelFilesError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Int64Array = npt.NDArray[np.int64]


class FastTokenizer:
    """Texts to token ids, neither padded nor truncated; safe to call from several threads.

    Args:
        tokenizer: a fast Hugging Face tokenizer.

    Raises:
        ValueError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} is a slow tokenizer; a tokenizer.json is needed.")
        self.tokenizer = tokenizer
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[Int64Array]:
        """Return the ids of every text with its special tokens, neither padded nor truncated."""
        if not texts:
            return []
        # Padding and truncation stay switched off, because switching them changes the shared tokenizer; the
        # lock is for callers who hold the same tokenizer and do switch.
        with self._lock:
            encoded = self.tokenizer(
                list(texts),
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
        return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder with ``tokenizer.json``.

    Raises:
        ModelFilesError: the file cannot be read.
    """
    from transformers import PreTrainedTokenizerFast

    # Not AutoTokenizer: the class it picks builds its own normaliser in some releases of transformers
    # (5.0 for XLM-RoBERTa), and then Chinese texts get other ids than tokenizer.json gives them.
    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True
        )
    except Exception as error:  # the tokenizers library raises no narrower type
        raise ModelFilesError(
            f"The tokenizer in {folder} cannot be read, perhaps a broken download: {error}. Delete "
            f"tokenizer.json and tokenizer_config.json there and download them again."
        ) from error
    return tokenizer


def truncate(ids: Int64Array, limit: int) -> Int64Array:
    """Cut ids to ``limit`` tokens, keeping the closing special token."""
    return ids if len(ids) <= limit else np.append(ids[: limit - 1], ids[-1])
