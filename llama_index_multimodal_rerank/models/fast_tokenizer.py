"""Texts to token ids, for any model with a ``tokenizer.json``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import ModelFilesError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_INSERTION = 100

Int64Array = npt.NDArray[np.int64]


class FastTokenizer:
    """Texts to token ids, neither padded nor truncated; safe to call from several threads.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        vocab_size: rows of the model's table of embeddings.
        fewest: tokens that every text has at least, special ones included.

    Raises:
        ValueError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, vocab_size: int, fewest: int = 0) -> None:
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} is a slow tokenizer; a tokenizer.json is needed.")
        self.tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._fewest = fewest
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[Int64Array]:
        """Return the ids of every text with its special tokens, neither padded nor truncated.

        Raises:
            ValueError: a pattern of the tokenizer cannot be matched, or it gives an id that the model has
                no row for, or fewer ids than the model reads.
        """
        if not texts:
            return []
        # The tokenizers library itself, not transformers around it, which costs as much again for every text.
        backend = self.tokenizer.backend_tokenizer
        # Not switched back: the lock is for callers who hold the same tokenizer and switch, too.
        with self._lock, _panics_as(ValueError, "The tokenizer cannot read a text"):
            if backend.padding is not None:
                backend.no_padding()
            if backend.truncation is not None:
                backend.no_truncation()
            if backend.encode_special_tokens != self.tokenizer.split_special_tokens:
                backend.encode_special_tokens = self.tokenizer.split_special_tokens
            # In all cores, and without the GIL; "fast" leaves out what is not asked for here.
            encodings = backend.encode_batch_fast(list(texts), add_special_tokens=True)
        rows = [encoding.ids for encoding in encodings]
        ends = np.cumsum([len(row) for row in rows])
        if (fewest := min(map(len, rows))) < self._fewest:
            raise self._wrong(f"{fewest} ids for a text, and the model reads at least {self._fewest}")
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(ends[-1]))
        if flat.size and not 0 <= flat.min() <= flat.max() < self._vocab_size:
            raise self._wrong(
                f"ids from {flat.min()} to {flat.max()}, and the model has {self._vocab_size} rows"
            )
        return np.split(flat, ends[:-1])

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"The tokenizer gives {what}: tokenizer.json is that of another model.")


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder with ``tokenizer.json``.

    Raises:
        ModelFilesError: the file cannot be read.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

    # Not AutoTokenizer: the class it picks builds its own normaliser in some releases of transformers
    # (5.0 for XLM-RoBERTa), and then Chinese texts get other ids than tokenizer.json gives them.
    try:
        with _panics_as(ModelFilesError, "tokenizer.json is damaged"):
            tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
                folder, local_files_only=True
            )
        tokenizer.model_max_length = int(VERY_LARGE_INTEGER)  # ours to cut; the file may say anything
        if inserted := _longest_insertion(tokenizer.backend_tokenizer.normalizer):
            raise ValueError(f"its normaliser puts a text of {inserted} characters in the place of others")
    except Exception as error:  # the tokenizers library raises no narrower type
        raise ModelFilesError(
            f"The tokenizer in {folder} cannot be read, perhaps a broken download: {error}. Delete "
            f"tokenizer.json and tokenizer_config.json there and download them again."
        ) from error
    return tokenizer


def _longest_insertion(normalizer: Any) -> int:
    """Return how long a text a normaliser inserts, if so long that a few words would become gigabytes."""
    if normalizer is None:
        return 0
    parts, longest = [json.loads(normalizer.__getstate__())], 0
    while parts:
        part = parts.pop()
        parts.extend(part.get("normalizers", ()))
        longest = max(longest, *(len(part.get(name) or "") for name in ("content", "prepend")))
    return longest if longest > _MAX_INSERTION else 0


@contextmanager
def _panics_as(error_class: type[Exception], message: str) -> Iterator[None]:
    """Turn a panic of the tokenizers library into an error; as a ``BaseException`` it would end a thread."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise error_class(f"{message}: {error}") from error


def truncate(ids: Int64Array, limit: int) -> Int64Array:
    """Cut ids to ``limit`` tokens, keeping the closing special token."""
    return ids if len(ids) <= limit else np.append(ids[: limit - 1], ids[-1])
