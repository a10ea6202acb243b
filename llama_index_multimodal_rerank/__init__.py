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
    from .loader import load_image_nodes as load_image_nodes
    from .milvus import EmbeddingMismatchError as EmbeddingMismatchError
    from .milvus import milvus_store as milvus_store
    from .milvus_client import MilvusDiskError as MilvusDiskError
    from .milvus_client import MilvusUnavailableError as MilvusUnavailableError
    from .nodes import ImageTextNode as ImageTextNode
    from .nodes import image_node as image_node
    from .query import ImageTextQuery as ImageTextQuery
    from .ranking import Audit as Audit
    from .ranking import BadAnswerError as BadAnswerError
    from .ranking import Ranking as Ranking
    from .rerank import Phi3VisionRerank as Phi3VisionRerank
    from .sheet import Cell as Cell
    from .sheet import Sheet as Sheet
    from .sheet import build_sheet as build_sheet
    from .sparse import BGEM3SparseEmbedding as BGEM3SparseEmbedding
    from .vlm.calls import ModelCallError as ModelCallError
    from .vlm.interface import VisionLanguageModel as VisionLanguageModel
    from .vlm.llama_index import LlamaIndexVLM as LlamaIndexVLM
    from .vlm.phi3_vision import LocalPhi3Vision as LocalPhi3Vision

_HOMES = {
    "Audit": "ranking",
    "BGEM3SparseEmbedding": "sparse",
    "BadAnswerError": "ranking",
    "Cell": "sheet",
    "EmbeddingMismatchError": "milvus",
    "ImageLoadError": "images",
    "ImageText": "image_text",
    "ImageTextNode": "nodes",
    "ImageTextQuery": "query",
    "LlamaIndexVLM": "vlm.llama_index",
    "LocalPhi3Vision": "vlm.phi3_vision",
    "MilvusDiskError": "milvus_client",
    "MilvusUnavailableError": "milvus_client",
    "ModelCallError": "vlm.calls",
    "Phi3VisionRerank": "rerank",
    "Ranking": "ranking",
    "Sheet": "sheet",
    "VisionLanguageModel": "vlm.interface",
    "VisualizedBGEEmbedding": "embedding",
    "build_sheet": "sheet",
    "image_node": "nodes",
    "load_image": "images",
    "load_image_nodes": "loader",
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
