"""Composed image retrieval for LlamaIndex: embed picture + text, search, look at the pictures, rerank.

Names are resolved on first use, so importing the package loads neither torch
nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agents.hit_list import HitListSynthesizer as HitListSynthesizer
    from .agents.search_tool import ImageSearchTool as ImageSearchTool
    from .catalogue.duplicates import CollapseDuplicates as CollapseDuplicates
    from .catalogue.grouping import GroupByProduct as GroupByProduct
    from .catalogue.query_image import ExcludeQueryImage as ExcludeQueryImage
    from .data.folders import load_image_nodes as load_image_nodes
    from .data.listed_image import ListedImage as ListedImage
    from .embeddings.magiclens import MagicLensEmbedding as MagicLensEmbedding
    from .embeddings.remote import EmbeddingServiceError as EmbeddingServiceError
    from .embeddings.remote import RemoteImageTextEmbedding as RemoteImageTextEmbedding
    from .embeddings.sparse import BGEM3SparseEmbedding as BGEM3SparseEmbedding
    from .embeddings.visualized_bge import VisualizedBGEEmbedding as VisualizedBGEEmbedding
    from .images.access import load_image as load_image
    from .images.sources import ImageLoadError as ImageLoadError
    from .indexing.milvus_server import MilvusServer as MilvusServer
    from .indexing.parquet_folder import ParquetFolder as ParquetFolder
    from .indexing.ray_index import index_with_ray as index_with_ray
    from .milvus.clients import MilvusDiskError as MilvusDiskError
    from .milvus.clients import MilvusUnavailableError as MilvusUnavailableError
    from .milvus.folder_sync import sync_folder as sync_folder
    from .milvus.store import EmbeddingMismatchError as EmbeddingMismatchError
    from .milvus.store import milvus_store as milvus_store
    from .reranking.adaptive import AdaptiveRerank as AdaptiveRerank
    from .reranking.batch import RerankBatchError as RerankBatchError
    from .reranking.budget import CallBudget as CallBudget
    from .reranking.margins import JudgedQuery as JudgedQuery
    from .reranking.margins import choose_margin as choose_margin
    from .reranking.postprocessor import Phi3VisionRerank as Phi3VisionRerank
    from .reranking.ranking import Audit as Audit
    from .reranking.ranking import BadAnswerError as BadAnswerError
    from .reranking.ranking import Ranking as Ranking
    from .reranking.sheet import Cell as Cell
    from .reranking.sheet import Sheet as Sheet
    from .reranking.sheet import build_sheet as build_sheet
    from .schema.conversion import to_image_nodes as to_image_nodes
    from .schema.image_node import image_node as image_node
    from .schema.image_text import ImageText as ImageText
    from .schema.nodes import ImageTextNode as ImageTextNode
    from .schema.query import ImageTextQuery as ImageTextQuery
    from .schema.values import NodeValueError as NodeValueError
    from .vlm.calls import ModelCallError as ModelCallError
    from .vlm.llama_index import LlamaIndexVLM as LlamaIndexVLM
    from .vlm.phi3_vision import LocalPhi3Vision as LocalPhi3Vision
    from .vlm.protocols import VisionLanguageModel as VisionLanguageModel

_DEFINED_IN = {
    "AdaptiveRerank": "reranking.adaptive",
    "Audit": "reranking.ranking",
    "BGEM3SparseEmbedding": "embeddings.sparse",
    "BadAnswerError": "reranking.ranking",
    "CallBudget": "reranking.budget",
    "Cell": "reranking.sheet",
    "CollapseDuplicates": "catalogue.duplicates",
    "EmbeddingMismatchError": "milvus.store",
    "EmbeddingServiceError": "embeddings.remote",
    "ExcludeQueryImage": "catalogue.query_image",
    "GroupByProduct": "catalogue.grouping",
    "HitListSynthesizer": "agents.hit_list",
    "ImageLoadError": "images.sources",
    "ImageSearchTool": "agents.search_tool",
    "ImageText": "schema.image_text",
    "ImageTextNode": "schema.nodes",
    "ImageTextQuery": "schema.query",
    "JudgedQuery": "reranking.margins",
    "ListedImage": "data.listed_image",
    "LlamaIndexVLM": "vlm.llama_index",
    "LocalPhi3Vision": "vlm.phi3_vision",
    "MagicLensEmbedding": "embeddings.magiclens",
    "MilvusDiskError": "milvus.clients",
    "MilvusServer": "indexing.milvus_server",
    "MilvusUnavailableError": "milvus.clients",
    "ModelCallError": "vlm.calls",
    "NodeValueError": "schema.values",
    "ParquetFolder": "indexing.parquet_folder",
    "Phi3VisionRerank": "reranking.postprocessor",
    "Ranking": "reranking.ranking",
    "RemoteImageTextEmbedding": "embeddings.remote",
    "RerankBatchError": "reranking.batch",
    "Sheet": "reranking.sheet",
    "VisionLanguageModel": "vlm.protocols",
    "VisualizedBGEEmbedding": "embeddings.visualized_bge",
    "build_sheet": "reranking.sheet",
    "choose_margin": "reranking.margins",
    "image_node": "schema.image_node",
    "index_with_ray": "indexing.ray_index",
    "load_image": "images.access",
    "load_image_nodes": "data.folders",
    "milvus_store": "milvus.store",
    "sync_folder": "milvus.folder_sync",
    "to_image_nodes": "schema.conversion",
}

__version__ = "0.1.0"
__all__ = [*_DEFINED_IN, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_DEFINED_IN[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
