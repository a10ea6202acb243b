"""How good are retrieval and reranking on products that no demo model was trained on?

python examples/evaluate.py
        indexes the drawn catalogue, asks the questions for held-out products, reranks with both strategies,
        and prints tables; --json writes the figures
python examples/evaluate.py --model BAAI/bge-visualized --reranker microsoft/Phi-3-vision-128k-instruct
        the same with the real models

Recall@k is, as in the composed image retrieval benchmarks, the share of queries with a right picture among
the first k; nDCG@9 counts all right pictures of the catalogue. Metrics are LlamaIndex', intervals are 95 %
bootstrap intervals by scipy. The reranker is given the first 9.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import OUTPUT, embedding_of, file_name
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.evaluation.retrieval.metrics import MRR, NDCG, HitRate
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore
from scipy.stats import bootstrap
from tqdm import tqdm

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    MagicLensEmbedding,
    Phi3VisionRerank,
    load_image_nodes,
    milvus_store,
)
from llama_index_multimodal_rerank.demo.catalogue import (
    draw_catalogue,
    draw_query_picture,
    held_out_queries,
)
from llama_index_multimodal_rerank.demo.queries import COMPOSED, FAMILIES

METRICS = {"Recall@1": (HitRate(), 1), "Recall@9": (HitRate(), 9), "MRR": (MRR(), 9), "nDCG@9": (NDCG(), 9)}
RESAMPLES = 2000

Figures = dict[str, list[float]]


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
    parser.add_argument("--products", type=int, default=900, help="pictures of the catalogue")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of composed queries, about 120 each")
    parser.add_argument("--other-rounds", type=int, default=2, help="rounds of other queries, about 60 each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    Settings.llm = None

    folder = OUTPUT / f"catalogue-{options.products}-{options.seed}"
    products = draw_catalogue(folder, count=options.products, seed=options.seed, show_progress=True)
    questions = held_out_queries(
        [product.look for product in products],
        composed_rounds=options.rounds,
        other_rounds=options.other_rounds,
        seed=options.seed,
    )
    embed_model = embedding_of(options.model)
    if isinstance(embed_model, MagicLensEmbedding):
        asked = [question for question in questions if question.picture is not None]
        print(f"MagicLens embeds no text alone: {len(questions) - len(asked)} questions are left out.")
        questions = asked
    store = milvus_store(
        str(OUTPUT / "evaluation.db"), embed_model, collection_name="evaluation", overwrite=True
    )
    nodes = load_image_nodes([product.path for product in products])
    IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    retriever = index.as_retriever(similarity_top_k=9)

    rerankers = {}
    if options.reranker:
        first_token = Phi3VisionRerank(model=options.reranker, top_n=9, strategy="first_token", explain=False)
        listwise = Phi3VisionRerank(
            model=first_token.vision_language_model, top_n=9, strategy="listwise", explain=False
        )
        rerankers = {"first_token": first_token, "listwise": listwise}
    lists: dict[str, list[Figures]] = {}
    families = []
    for number, question in enumerate(tqdm(questions, desc="Asking", unit="query")):
        families.append(question.family)
        picture = None if question.picture is None else draw_query_picture(question.picture, number)
        query = ImageTextQuery(question.text, image=picture)
        right = [product.path.name for product in products if question.is_answered_by(product.look)]
        retrieved = retriever.retrieve(query)
        shuffled = random.Random(number).sample(retrieved, len(retrieved))  # noqa: S311 (no secret)
        ranked = {"retrieved": retrieved}
        for name, reranker in rerankers.items():
            ranked[name] = reranker.postprocess_nodes(retrieved, query_bundle=query)
            ranked[f"{name}, shuffled"] = reranker.postprocess_nodes(shuffled, query_bundle=query)
        for name, hits in ranked.items():
            lists.setdefault(name, []).append(measure(hits, right))
    report = summarise(families, lists)
    print_tables(report)
    if options.json:
        arguments = {name: str(value) for name, value in vars(options).items()}
        text = json.dumps({"arguments": arguments, **report}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


def measure(hits: Sequence[NodeWithScore], right: list[str]) -> dict[str, float]:
    """Return every metric of one list."""
    names = [file_name(hit) for hit in hits]
    return {
        name: metric.compute(expected_ids=right, retrieved_ids=names[:depth]).score
        for name, (metric, depth) in METRICS.items()
    }


def summarise(families: Sequence[str], lists: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Return means by family and list, and what reranking changed, with intervals."""
    groups = {
        "composed": [i for i, family in enumerate(families) if family in COMPOSED],
        **{family: [i for i, each in enumerate(families) if each == family] for family in FAMILIES},
    }
    means, changes = {}, {}
    for group, members in groups.items():
        if not members:
            continue
        for metric in METRICS:
            before = np.array([lists["retrieved"][i][metric] for i in members])
            for name, rows in lists.items():
                after = np.array([rows[i][metric] for i in members])
                means.setdefault(group, {}).setdefault(name, {})[metric] = estimate(after)
                if name != "retrieved":
                    changes.setdefault(group, {}).setdefault(name, {})[metric] = estimate(after - before)
    return {
        "queries": {group: len(members) for group, members in groups.items()},
        "means": means,
        "changes": changes,
    }


def estimate(values: np.ndarray) -> dict[str, float]:  # type: ignore[type-arg]
    """Return mean and 95 % interval."""
    low = high = float(values.mean())
    if len(set(values.tolist())) > 1:  # without spread there is nothing to draw from
        found = bootstrap((values,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0))
        low, high = map(float, found.confidence_interval)
    return {"mean": round(float(values.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def print_tables(report: dict[str, object]) -> None:
    """Print means, and changes with their intervals."""
    for title, content in (("Means", report["means"]), ("Change by reranking", report["changes"])):
        if not content:
            continue
        print(f"\n{title}, with 95 % intervals\n{'':36}" + "".join(f"{name:^24}" for name in METRICS))
        for group, rows in content.items():  # type: ignore[attr-defined]
            print(f"{group} ({report['queries'][group]} queries)")  # type: ignore[index]
            for name, figures in rows.items():
                cells = (
                    f"{each['mean']:6.3f} [{each['low']:6.3f},{each['high']:6.3f}]"
                    for each in figures.values()
                )
                print(f"  {name:34}" + "".join(f"{cell:^24}" for cell in cells))


if __name__ == "__main__":
    main()
