"""BGEM3SparseEmbedding: BGE-M3's lexical weights for Milvus hybrid search."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction

from ..lazy import Lazy

_FILES = (
    "config.json",
    "tokenizer*",
    "sentencepiece*",
    "special_tokens_map.json",
    "*.safetensors",
    "pytorch_model*.bin",
)
_HEADS = ("sparse_linear.pt", "colbert_linear.pt")

# Milvus refuses a sparse vector without entries, and pictures often have no text. The ids of <s> and
# <pad> never occur among lexical weights, and differ: an empty document matches no query at all, and an
# empty query no document.
_EMPTY_DOCUMENT = {0: 1.0}
_EMPTY_QUERY = {1: 1.0}


class BGEM3SparseEmbedding(BaseSparseEmbeddingFunction):
    """Lexical (sparse) weights of BGE-M3, computed by the FlagEmbedding package.

    Pass it to :func:`milvus_store` as ``sparse_embedding_function``: the collection then holds the
    texts' lexical weights beside the composed vectors. Only text counts here; a picture without text
    is found by its dense vector alone. The model (2.3 GB for ``BAAI/bge-m3``) is loaded on first use.

    Args:
        model_name: hub name or local folder.
        device: torch device; default: what FlagEmbedding chooses.
        use_fp16: half precision; on a GPU only.
        batch_size: texts in one call of the model.
        max_length: longest text in tokens, at most 8192; the rest is cut off.
        cache_folder: where hub files are kept.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub (as ``HF_HUB_OFFLINE=1``).

    Source: "BGE M3-Embedding", arXiv:2402.03216, and the model card ``BAAI/bge-m3``.
    """

    def __init__(
        self,
        model_name: str = "BAAI/bge-m3",
        *,
        device: str | None = None,
        use_fp16: bool = False,
        batch_size: int = 32,
        max_length: int = 8192,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.model_name = model_name
        self.device = device
        self.use_fp16 = use_fp16
        self.batch_size = batch_size
        self.max_length = max_length
        self.cache_folder = cache_folder
        self.revision = revision
        self.local_files_only = local_files_only
        self._model: Lazy[Any] = Lazy()
        self._lock = threading.Lock()

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Return the lexical weights of queries, ``{token id: weight}`` each."""
        return self._encode(queries, _EMPTY_QUERY)

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Return the lexical weights of documents, ``{token id: weight}`` each."""
        return self._encode(documents, _EMPTY_DOCUMENT)

    def _encode(self, texts: Sequence[str], empty: dict[int, float]) -> list[dict[int, float]]:
        full = [str(text) for text in texts if text.strip()]
        weights = iter(self._lexical_weights(full) if full else ())
        return [(next(weights) or dict(empty)) if text.strip() else dict(empty) for text in texts]

    def _lexical_weights(self, texts: list[str]) -> list[dict[int, float]]:
        model = self._model.get(self._load)
        with self._lock:  # FlagEmbedding moves the model and resizes batches inside encode
            output = model.encode(
                texts,
                batch_size=self.batch_size,
                max_length=self.max_length,
                return_dense=False,
                return_sparse=True,
                return_colbert_vecs=False,
            )
        return [
            {int(token): float(weight) for token, weight in weights.items()}
            for weights in output["lexical_weights"]
        ]

    def _load(self) -> Any:
        folder = Path(self.model_name).expanduser()
        if not folder.is_dir():
            folder = self._download()
        missing = [name for name in _HEADS if not (folder / name).is_file()]
        if missing:  # FlagEmbedding would go on with random weights
            raise FileNotFoundError(
                f"{str(folder)!r} is not a BGE-M3 checkpoint: {' and '.join(missing)} missing. "
                "Pass 'BAAI/bge-m3' or a folder with all of its files."
            )
        try:
            from FlagEmbedding import BGEM3FlagModel
        except Exception as error:  # it imports much, and fails in as many ways
            raise ImportError(
                f"FlagEmbedding cannot be imported ({error}); try: pip install -U FlagEmbedding"
            ) from error
        return BGEM3FlagModel(str(folder), use_fp16=self.use_fp16, devices=self.device)

    def _download(self) -> Path:
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    self.model_name,
                    revision=self.revision,
                    cache_dir=self.cache_folder,
                    local_files_only=self.local_files_only,
                    allow_patterns=[*_FILES, *_HEADS],
                )
            )
        except Exception as error:
            raise OSError(
                f"{self.model_name!r} is neither a local folder nor can it be had from the hub ({error}). "
                "Fetch it once where there is a network (hf download BAAI/bge-m3), then pass its folder as "
                "model_name."
            ) from error
