"""``multimodal-rerank evaluate``."""

from __future__ import annotations

import argparse
import os

from ...embeddings.magiclens import MagicLensEmbedding
from ...evaluation.benchmark import IMAGE_ID_KEY, Benchmark
from ...evaluation.evaluate import evaluate
from ...evaluation.json_files import BenchmarkFileError
from ...evaluation.labelled_queries import load_labelled_queries
from ..collections import Collection
from .opening import opened
from .output import collection_json, print_json, print_lines
from .parser import check_reranking, shows_progress


def run(options: argparse.Namespace) -> int:
    """Ask labelled queries, and print how good the answers are."""
    check_reranking(options)
    depth = 9 if options.rerank_depth is None else options.rerank_depth
    if depth < 1:
        raise ValueError(f"--rerank-depth must be 1 or more, got {depth}")
    benchmark = load_labelled_queries(options.file, images=options.query_images)
    collection = opened(options)
    try:
        _check_relevant(benchmark, collection)
        models = collection.models
        reranker = None
        if options.rerank != "none":
            models.load_reranker()
            reranker = models.reranker(options.rerank, top_n=depth, explain=False)
        no_words_alone = isinstance(models.embed_model, MagicLensEmbedding)
        found = evaluate(
            benchmark,
            collection.index,
            model=models.embed_model,
            reranker=reranker,
            rerank_depth=depth if reranker is not None else None,
            ablations=() if options.no_ablations else (("image",) if no_words_alone else ("image", "text")),
            show_progress=shows_progress(options),
        )
        if options.json:
            print_json({"collection": collection_json(collection), **found.to_dict()})
        else:
            print_lines(found.to_markdown())
    finally:
        collection.close()
    return 0


def _check_relevant(benchmark: Benchmark, collection: Collection) -> None:
    """Refuse right answers that are no pictures of the collection: each would count as a miss."""
    known: set[str] = set()
    for node in collection.store.all_nodes():
        path = getattr(node, "image_path", None) or ""
        name = os.path.basename(path)  # noqa: PTH119 (a name that the search gives its pictures, not a file)
        known |= {str(node.metadata.get(IMAGE_ID_KEY, "")), node.node_id, path, name, name.rpartition(".")[0]}
    missing = [(query.id_, id_) for query in benchmark.queries for id_ in query.relevant if id_ not in known]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BenchmarkFileError(
            f"query {missing[0][0]!r}: {missing[0][1]!r} in 'relevant' is no picture of the collection"
            f"{more}. Name them by their files, paths or ids"
        )
