"""Adapters to mteb, the Massive Text Embedding Benchmark: ``mteb.evaluate`` runs our models on its tasks.

They need mteb: ``pip install "llama-index-multimodal-rerank[mteb]"``.
"""

try:
    import mteb as _mteb  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'{error}. These adapters need mteb: pip install "llama-index-multimodal-rerank[mteb]"'
    ) from error

from .encoder import MTEBEncoder as MTEBEncoder
from .reranker import MTEBReranker as MTEBReranker
