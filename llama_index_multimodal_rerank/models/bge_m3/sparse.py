"""Lexical weights computed here: XLM-RoBERTa, a linear layer, and a maximum for each token id."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from ..batching import plan_batches
from ..errors import CheckpointError
from ..hardware import resolve_device
from .checkpoint import checkpoint_errors, load_tokenizer, read_sparse_linear

# Of these no text gets a weight. A <mask> written in a text does get one, as in FlagEmbedding.
_UNWEIGHTED = ("cls_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


class BGEM3SparseModel:
    """BGE-M3 reduced to its lexical weights; safe to call from several threads.

    The weight of a token is ``relu(w . h + b)`` of its last hidden state ``h``; a token id that occurs
    more than once in a text keeps its largest weight, and ids without a positive weight are left out.

    Args:
        encoder: the transformer, on its device and in evaluation mode.
        sparse_linear: ``w`` and ``b``, on the same device and in the same floating point type.
        tokenizer: its tokenizer.

    Source: "BGE M3-Embedding", arXiv:2402.03216, section 3.2 (lexical retrieval). Which tokens are left out
    follows FlagEmbedding 1.4.2, whose numbers are in ``tests/golden/bge_m3_sparse``.
    """

    def __init__(
        self, encoder: PreTrainedModel, sparse_linear: nn.Linear, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._encoder = encoder
        self._sparse_linear = sparse_linear
        self._tokenizer = tokenizer
        ids = (getattr(tokenizer, name) for name in _UNWEIGHTED)
        self._unweighted = [token for token in ids if token is not None]
        self._lock = threading.Lock()

    @classmethod
    def from_folder(
        cls, folder: Path, *, device: str | None = None, use_fp16: bool = False
    ) -> BGEM3SparseModel:
        """Load a checkpoint; its weights may be in the safetensors or in PyTorch's format.

        Args:
            folder: a complete checkpoint.
            device: torch device; None takes the first there is of CUDA, MPS and the CPU.
            use_fp16: round the weights to half precision, and compute in it too, except on the CPU.

        Raises:
            CheckpointError: a file is damaged, or files do not belong together.
            ValueError: the device cannot be used.
        """
        place = resolve_device(device)
        dtype = torch.float16 if use_fp16 else torch.float32
        sparse_linear = read_sparse_linear(folder).to(dtype)
        tokenizer = load_tokenizer(folder)
        with checkpoint_errors(folder):
            encoder, loading_info = AutoModel.from_pretrained(
                folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        # transformers fills missing tensors with random numbers; the pooler is not used here
        if missing := sorted(key for key in loading_info["missing_keys"] if not key.startswith("pooler.")):
            raise CheckpointError(
                f"The weights in {folder} lack {', '.join(missing)}. Delete the file and download it again."
            )
        if place.type == "cpu":  # as FlagEmbedding does: half precision is slow there
            encoder, sparse_linear = encoder.float(), sparse_linear.float()
        return cls(encoder.to(place).eval(), sparse_linear.to(place), tokenizer)

    def lexical_weights(
        self, texts: Sequence[str], *, batch_size: int = 32, max_length: int = 8192
    ) -> list[dict[int, float]]:
        """Return ``{token id: weight}`` of every text, in the order of the texts.

        Args:
            texts: any texts; an empty one has no weights.
            batch_size: most texts in one call of the model; fewer where they have more than 512 tokens or
                do not fit into the device's memory.
            max_length: longest text in tokens, the two special ones included; the rest is cut off.

        Raises:
            ValueError: the model gave numbers that are not finite.
        """
        if not texts:
            return []
        with self._lock:  # truncation changes the tokenizer; and one batch at a time is in memory
            rows: list[list[int]] = self._tokenizer(
                list(texts),
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
            weights: list[dict[int, float]] = [{} for _ in rows]
            for batch in plan_batches(
                list(map(len, rows)), [False] * len(rows), image_tokens=0, batch_size=batch_size
            ):
                ids = [rows[i] for i in batch]
                for i, row, values in zip(batch, ids, self._token_weights(ids), strict=True):
                    weights[i] = self._largest_by_id(row, values)
        return weights

    def _token_weights(self, rows: list[list[int]]) -> list[npt.NDArray[np.float32]]:
        try:
            return self._run(rows)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        half = (len(rows) + 1) // 2  # here the exception, and what it kept in memory, is gone
        return self._token_weights(rows[:half]) + self._token_weights(rows[half:])

    @torch.inference_mode()
    def _run(self, rows: list[list[int]]) -> list[npt.NDArray[np.float32]]:
        device = self._encoder.device
        pad = self._tokenizer.pad_token_id
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
        lengths = torch.tensor(list(map(len, rows)))
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        hidden = self._encoder(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        values = torch.relu(self._sparse_linear(hidden)).squeeze(-1).float().cpu().numpy()
        return [value[: len(row)] for row, value in zip(rows, values, strict=True)]

    def _largest_by_id(self, row: list[int], values: npt.NDArray[np.float32]) -> dict[int, float]:
        if not np.isfinite(values).all():
            raise ValueError(
                f"BGE-M3 gave weights that are not finite for a text of {len(row)} tokens: its weights are "
                "damaged, or too large for half precision (try use_fp16=False)."
            )
        ids = np.asarray(row)
        kept = (values > 0) & ~np.isin(ids, self._unweighted)
        largest: dict[int, float] = {}
        for token, value in zip(ids[kept].tolist(), values[kept].tolist(), strict=True):
            largest[token] = max(value, largest.get(token, 0.0))
        return largest
