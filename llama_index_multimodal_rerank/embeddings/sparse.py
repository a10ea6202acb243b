"""BGEM3SparseEmbedding: BGE-M3's lexical weights for Milvus hybrid search."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction

from ..lazy import LazyModel
from ..schema.image_text import words_of

if TYPE_CHECKING:
    from ..models.bge_m3.loading import SparseModel

logger = logging.getLogger(__name__)

_LINEAR = "sparse_linear.pt"
_FILES = (
    "config.json",
    "tokenizer*",
    "sentencepiece*",
    "special_tokens_map.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "*.index.json",
    _LINEAR,
    "colbert_linear.pt",
)
_LONGEST = 8192

# Milvus refuses a sparse vector without entries, and pictures often have no text. The ids of <s> and
# <pad> never occur among lexical weights, and differ: an empty document matches no query at all, and an
# empty query no document.
_EMPTY_DOCUMENT = {0: 1.0}
_EMPTY_QUERY = {1: 1.0}


class BGEM3SparseEmbedding(BaseSparseEmbeddingFunction):
    """Lexical (sparse) weights of BGE-M3.

    Pass it to :func:`milvus_store` as ``sparse_embedding_function``: the collection then holds the
    texts' lexical weights beside the composed vectors. Only text counts here; a picture without text
    is found by its dense vector alone. The model (2.3 GB for ``BAAI/bge-m3``) is loaded on first use.

    The FlagEmbedding package computes them; where it cannot be imported (its release 1.4.2 beside
    transformers 5.24), this package computes the same numbers without it.

    Args:
        model_name: hub name or local folder.
        device: torch device; default: what FlagEmbedding chooses, or the first there is of CUDA, MPS and
            the CPU.
        use_fp16: round the weights to half precision, and compute in it too, except on the CPU.
        batch_size: texts in one call of the model, at least 1.
        max_length: longest text in tokens, from 3 (one, and the two special ones around it) to 8192; the
            rest is cut off.
        cache_folder: where hub files are kept.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub (as ``HF_HUB_OFFLINE=1``).

    Raises:
        ValueError: ``batch_size`` or ``max_length`` is out of range.

    Source: "BGE M3-Embedding", arXiv:2402.03216, and the model card ``BAAI/bge-m3``.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-m3",
        *,
        device: str | None = None,
        use_fp16: bool = False,
        batch_size: int = 32,
        max_length: int = _LONGEST,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is not possible; give 1 or more.")
        if not 3 <= max_length <= _LONGEST:  # below, tokenizers cut off everything (2) or nothing (1)
            raise ValueError(f"max_length={max_length} is not possible; give 3 to {_LONGEST} tokens.")
        self.model_name = model_name
        self.device = device
        self.use_fp16 = use_fp16
        self.batch_size = batch_size
        self.max_length = max_length
        self.cache_folder = cache_folder
        self.revision = revision
        self.local_files_only = local_files_only
        self._model: LazyModel[SparseModel] = LazyModel()

    @property
    def fingerprint(self) -> dict[str, str]:
        """What tells these weights from another checkpoint's; does not load the model.

        The digest of ``sparse_linear.pt``, the layer that makes the weights (a few kilobytes; fetched from
        the hub if it is not there). Empty where it cannot be had.
        """
        try:
            return {"linear_sha256": hashlib.sha256(self._find_linear().read_bytes()).hexdigest()}
        except Exception as error:  # of the hub, the network, the disk: not needed to open a collection
            logger.debug("%s: %s cannot be read: %s", self.model_name, _LINEAR, error)
            return {}

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Return the lexical weights of queries, ``{token id: weight}`` each."""
        return self._encode(queries, _EMPTY_QUERY)

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Return the lexical weights of documents, ``{token id: weight}`` each."""
        return self._encode(documents, _EMPTY_DOCUMENT)

    def _encode(self, texts: Sequence[str], empty: dict[int, float]) -> list[dict[int, float]]:
        texts = [words_of(text) for text in texts]
        full = [text for text in texts if text.strip()]
        weights = iter(self._lexical_weights(full) if full else ())
        return [(next(weights) or dict(empty)) if text.strip() else dict(empty) for text in texts]

    def _lexical_weights(self, texts: list[str]) -> list[dict[int, float]]:
        model = self._model.get(self._load)
        return model.lexical_weights(texts, batch_size=self.batch_size, max_length=self.max_length)

    def _load(self) -> SparseModel:
        from ..models.bge_m3.loading import load_sparse_model

        folder = Path(self.model_name).expanduser()
        if not folder.is_dir():
            folder = self._download()
        return load_sparse_model(folder, device=self.device, use_fp16=self.use_fp16)

    def _find_linear(self) -> Path:
        from huggingface_hub import hf_hub_download

        folder = Path(self.model_name).expanduser()
        if folder.is_dir():
            return folder / _LINEAR
        return Path(
            hf_hub_download(
                self.model_name,
                _LINEAR,
                revision=self.revision,
                cache_dir=self.cache_folder,
                local_files_only=self.local_files_only,
            )
        )

    def _download(self) -> Path:
        from huggingface_hub import snapshot_download

        from ..models.hub_reach import why_unreachable
        from ..models.not_on_hub import describe_missing_model

        unreachable = None if self.local_files_only else why_unreachable()
        try:
            return Path(
                snapshot_download(
                    self.model_name,
                    revision=self.revision,
                    cache_dir=self.cache_folder,
                    local_files_only=self.local_files_only or unreachable is not None,
                    allow_patterns=list(_FILES),
                )
            )
        except Exception as error:
            raise OSError(
                describe_missing_model(
                    repr(self.model_name),
                    ConnectionError(unreachable) if unreachable else error,
                    commands=["BAAI/bge-m3"],
                    folder_holds="a checkpoint of BGE-M3",
                    cache_folder=self.cache_folder,
                    revision=self.revision,
                )
            ) from error
