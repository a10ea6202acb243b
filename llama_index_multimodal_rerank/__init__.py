"""Composed image retrieval for LlamaIndex: embed picture + text, search, look at the pictures, rerank.

Names are resolved on first use, so importing the package loads neither torch
nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedding import VisualizedBGEEmbedding as VisualizedBGEEmbedding
    from .image_text import ImageText as ImageText
    from .images import ImageLoadError as ImageLoadError
    from .images import load_image as load_image
    from .milvus import EmbeddingMismatchError as EmbeddingMismatchError
    from .milvus import milvus_store as milvus_store
    from .nodes import ImageTextNode as ImageTextNode
    from .nodes import image_node as image_node
    from .nodes import load_image_nodes as load_image_nodes
    from .query import ImageTextQuery as ImageTextQuery
    from .sparse import BGEM3SparseEmbedding as BGEM3SparseEmbedding

_HOMES = {
    "BGEM3SparseEmbedding": "sparse",
    "EmbeddingMismatchError": "milvus",
    "ImageLoadError": "images",
    "ImageText": "image_text",
    "ImageTextNode": "nodes",
    "ImageTextQuery": "query",
    "VisualizedBGEEmbedding": "embedding",
    "image_node": "nodes",
    "load_image": "images",
    "load_image_nodes": "nodes",
    "milvus_store": "milvus",
}

__version__ = "0.1.0"
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
