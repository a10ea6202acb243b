"""Composed image retrieval, measured: benchmarks and labelled queries, through standard LlamaIndex.

>>> from llama_index_multimodal_rerank.evaluation import evaluate, load_cirr
"""

from .benchmark import Benchmark, BenchmarkQuery, Gallery, gallery_nodes
from .circo import load_circo
from .cirr import load_cirr
from .estimates import Estimate, estimate
from .evaluate import evaluate
from .fashion_iq import load_fashion_iq
from .json_files import BenchmarkFileError
from .labelled_queries import load_labelled_queries
from .metrics import Metric, average_precision_at, mrr_at, ndcg_at, recall_at, subset_recall_at
from .results import Evaluation, EvaluationProtocol, average, protocol_table
from .submissions import write_circo_submission, write_cirr_submission
from .summary import Gap, Row, Summary

__all__ = [
    "Benchmark",
    "BenchmarkFileError",
    "BenchmarkQuery",
    "Estimate",
    "Evaluation",
    "EvaluationProtocol",
    "Gallery",
    "Gap",
    "Metric",
    "Row",
    "Summary",
    "average",
    "average_precision_at",
    "estimate",
    "evaluate",
    "gallery_nodes",
    "load_circo",
    "load_cirr",
    "load_fashion_iq",
    "load_labelled_queries",
    "mrr_at",
    "ndcg_at",
    "protocol_table",
    "recall_at",
    "subset_recall_at",
    "write_circo_submission",
    "write_cirr_submission",
]
