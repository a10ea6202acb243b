"""How good are retrieval and reranking on products that no demo model was trained on?

python examples/evaluate.py
        indexes the drawn catalogue, asks the questions for held-out products, reranks with both strategies,
        and prints tables; --json writes the figures. After a few questions it says how long all will take;
        interrupted (Ctrl-C), it prints the figures of those that were asked by then
python examples/evaluate.py --ablate
        asks the questions of picture and words only, but each with its picture alone and its words alone, too
python examples/evaluate.py --model BAAI/bge-visualized --reranker microsoft/Phi-3-vision-128k-instruct
        the same with the real models

Recall@k is, as in the composed image retrieval benchmarks, the share of queries with a right picture among
the first k; nDCG@9 counts all right pictures of the catalogue. Metrics are LlamaIndex', intervals are 95 %
bootstrap intervals by scipy. The reranker is given the first 9.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from _common import OUTPUT, embedding_of, load
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from llama_index_multimodal_rerank import (
    MagicLensEmbedding,
    Phi3VisionRerank,
    load_image_nodes,
    milvus_store,
)
from llama_index_multimodal_rerank.demo.catalogue import (
    Product,
    draw_catalogue,
    draw_query_picture,
    held_out_queries,
)
from llama_index_multimodal_rerank.demo.queries import COMPOSED, FAMILIES, DemoQuery
from llama_index_multimodal_rerank.evaluation import (
    Benchmark,
    BenchmarkQuery,
    Evaluation,
    Gallery,
    Row,
    evaluate,
    mrr_at,
    ndcg_at,
    recall_at,
)

METRICS = (recall_at(1), recall_at(9), replace(mrr_at(9), name="MRR"), ndcg_at(9))


class Shuffled(BaseNodePostprocessor):
    """Shuffles what was retrieved before it is reranked: does the reranker look at places?"""

    reranker: BaseNodePostprocessor
    _seeds: Iterator[int] = PrivateAttr(default_factory=itertools.count)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        shuffled = random.Random(next(self._seeds)).sample(nodes, len(nodes))  # noqa: S311 (no secret)
        return self.reranker.postprocess_nodes(shuffled, query_bundle=query_bundle)


def main() -> None:
    """Read the command line, run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="demo",
        help="Visualized BGE: hub name, file or folder; MagicLens: magiclens-base, a path like it",
    )
    parser.add_argument("--reranker", default="demo", help="Phi-3 Vision: hub name or folder; '' for none")
    parser.add_argument(
        "--strategies",
        nargs="+",
        default=["first_token", "listwise"],
        choices=["first_token", "listwise"],
        help="how the reranker ranks",
    )
    parser.add_argument("--products", type=int, default=900, help="pictures of the catalogue")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of composed queries, about 120 each")
    parser.add_argument("--other-rounds", type=int, default=2, help="rounds of other queries, about 60 each")
    parser.add_argument(
        "--ablate", action="store_true", help="composed queries, each also with one side alone"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    Settings.llm = None

    embed_model = embedding_of(options.model)
    rerankers: dict[str, Phi3VisionRerank] = {}
    if options.reranker:
        model: Any = options.reranker
        for strategy in options.strategies:
            reranker = Phi3VisionRerank(model=model, top_n=9, strategy=strategy, explain=False)
            model = reranker.vision_language_model  # loaded once
            rerankers[strategy] = reranker
    load(embed_model, next(iter(rerankers.values()), None))

    folder = OUTPUT / f"catalogue-{options.products}-{options.seed}"
    products = draw_catalogue(folder, count=options.products, seed=options.seed, show_progress=True)
    questions = held_out_queries(
        [product.look for product in products],
        composed_rounds=options.rounds,
        other_rounds=options.other_rounds,
        seed=options.seed,
    )
    is_magiclens = isinstance(embed_model, MagicLensEmbedding)
    if is_magiclens:
        asked = [question for question in questions if question.picture is not None]
        print(f"MagicLens embeds no text alone: {len(questions) - len(asked)} questions are left out.")
        questions = asked
    store = milvus_store(
        str(OUTPUT / "evaluation.db"), embed_model, collection_name="evaluation", overwrite=True
    )
    nodes = load_image_nodes([product.path for product in products])
    IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)

    benchmark = benchmark_of(questions, products)
    asked_for = benchmark.queries
    if options.ablate:
        asked_for = tuple(query for query in benchmark.queries if query.sides == "composed")
        found = evaluate(
            replace(benchmark, queries=asked_for),
            index,
            model=embed_model,
            reranker=rerankers,
            ablations=("image",) if is_magiclens else ("image", "text"),
        )
        report = found.to_dict()
        print(found.to_markdown())
    else:
        lists: dict[str, BaseNodePostprocessor] = {}
        for name, reranker in rerankers.items():
            lists |= {name: reranker, f"{name}, shuffled": Shuffled(reranker=reranker)}
        found = evaluate(benchmark, index, model=embed_model, reranker=lists, ablations=())
        report = report_of(found)
        print_tables(report)
    if not found.protocol.complete:
        print(
            f"\nInterrupted: these are the figures of {found.protocol.queries} of {len(asked_for)} questions."
        )
    if options.json:
        arguments = {name: str(value) for name, value in vars(options).items()}
        text = json.dumps({"arguments": arguments, **report}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


def benchmark_of(questions: Sequence[DemoQuery], products: Sequence[Product]) -> Benchmark:
    """Return the questions with their right answers; pictures are called by the names of their files."""
    queries = tuple(
        BenchmarkQuery(
            id_=str(number),
            text=question.text,
            image=None if question.picture is None else draw_query_picture(question.picture, number),
            relevant=tuple(each.path.name for each in products if question.is_answered_by(each.look)),
            groups=(question.family, *(["composed"] if question.family in COMPOSED else [])),
        )
        for number, question in enumerate(questions)
    )
    files = {product.path.name: product.path for product in products}
    gallery = Gallery("the drawn catalogue", frozenset(files), files)
    return Benchmark("demo", "held-out products", queries, METRICS, gallery)


def report_of(found: Evaluation) -> dict[str, Any]:
    """Return means by family and list, and what reranking changed, with intervals."""
    groups = [group for group in ("composed", *FAMILIES) if group in found.groups]
    summaries = {group: found.summary(group) for group in groups}
    return {
        "queries": {group: summary.means[0].queries for group, summary in summaries.items()},
        "means": {group: by_list(summary.means) for group, summary in summaries.items()},
        "changes": {
            group: by_list(summary.changes) for group, summary in summaries.items() if summary.changes
        },
        "protocol": found.protocol.to_dict(),
    }


def by_list(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of each list."""
    return {row.ranking: {name: figure.to_dict() for name, figure in row.figures.items()} for row in rows}


def print_tables(report: dict[str, Any]) -> None:
    """Print means, and changes with their intervals."""
    for title, content in (("Means", report["means"]), ("Change by reranking", report["changes"])):
        if not content:
            continue
        print(f"\n{title}, with 95 % intervals\n{'':36}" + "".join(f"{each.name:^24}" for each in METRICS))
        for group, rows in content.items():
            print(f"{group} ({report['queries'][group]} queries)")
            for name, figures in rows.items():
                cells = (
                    f"{each['mean']:6.3f} [{each['low']:6.3f},{each['high']:6.3f}]"
                    for each in figures.values()
                )
                print(f"  {name:34}" + "".join(f"{cell:^24}" for cell in cells))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted before the first question was answered: there are no figures.")
