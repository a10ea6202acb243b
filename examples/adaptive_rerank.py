"""How many calls of the reranking model can be saved, and what does that cost?

python examples/adaptive_rerank.py
        asks the drawn catalogue, reranks every answer once, chooses a margin on half of the queries, prints
        what it does to the other half, and has AdaptiveRerank do it there; --json writes the figures
python examples/adaptive_rerank.py --model BAAI/bge-visualized --reranker microsoft/Phi-3-vision-128k-instruct
        the same with the real models

The margin is the difference of the first two retrieval scores; queries at or above it are not reranked. The
quality is nDCG@9, over all right pictures of the catalogue. "at random" is what saving as many calls would
give, whichever the queries. The halves are drawn at random.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path

from _common import OUTPUT, embedding_of, load
from _results import file_name
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.evaluation.retrieval.metrics import NDCG
from llama_index.core.schema import NodeWithScore
from tqdm import tqdm

from llama_index_multimodal_rerank import (
    AdaptiveRerank,
    ImageTextQuery,
    JudgedQuery,
    Phi3VisionRerank,
    choose_margin,
    load_image_nodes,
)
from llama_index_multimodal_rerank.demo.catalogue import (
    draw_catalogue,
    draw_query_picture,
    held_out_queries,
)
from llama_index_multimodal_rerank.reranking.margins import MarginEffect, margin_effect, score_margin

CANDIDATES = 9
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def main() -> None:
    """Read the command line, run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="Visualized BGE: hub name, file or folder")
    parser.add_argument("--reranker", default="demo", help="Phi-3 Vision: hub name or folder")
    parser.add_argument("--products", type=int, default=900, help="pictures of the catalogue")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of composed queries, about 120 each")
    parser.add_argument("--other-rounds", type=int, default=4, help="rounds of other queries, about 60 each")
    parser.add_argument("--questions", type=int, help="ask only so many of them, drawn at random")
    parser.add_argument("--max-loss", type=float, default=0.005, help="nDCG that may be lost")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    Settings.llm = None

    embed_model = embedding_of(options.model)
    reranker = Phi3VisionRerank(
        model=options.reranker, top_n=CANDIDATES, strategy="first_token", explain=False
    )
    load(embed_model, reranker)

    folder = OUTPUT / f"catalogue-{options.products}-{options.seed}"
    products = draw_catalogue(folder, count=options.products, seed=options.seed, show_progress=True)
    questions = held_out_queries(
        [product.look for product in products],
        composed_rounds=options.rounds,
        other_rounds=options.other_rounds,
        seed=options.seed,
    )
    # They come in a fixed order of products: every second one would be of other products than those between.
    asked_of = len(questions) if options.questions is None else options.questions
    questions = random.Random(options.seed).sample(questions, asked_of)  # noqa: S311 (no secret)
    nodes = load_image_nodes([product.path for product in products])
    index = VectorStoreIndex(nodes, embed_model=embed_model, show_progress=True)
    retriever = index.as_retriever(similarity_top_k=CANDIDATES)

    asked: list[tuple[list[NodeWithScore], ImageTextQuery]] = []
    right: list[list[str]] = []
    judged = []
    for number, question in enumerate(tqdm(questions, desc="Asking", unit="query")):
        picture = None if question.picture is None else draw_query_picture(question.picture, number)
        query = ImageTextQuery(question.text, image=picture)
        found = retriever.retrieve(query)
        ranked = reranker.postprocess_nodes(found, query_bundle=query)
        right.append([product.path.name for product in products if question.is_answered_by(product.look)])
        asked.append((found, query))
        before, after = (ndcg(hits, right[number]) for hits in (found, ranked))
        calls = reranker.planned_calls(len(found), query)
        judged.append(JudgedQuery([hit.score for hit in found], before, after, calls))

    chosen = choose_margin(judged[::2], max_loss=options.max_loss)
    others = judged[1::2]
    effect = margin_effect(others, chosen.margin)
    print_table(others, chosen)

    adaptive = AdaptiveRerank(reranker=reranker, margin=chosen.margin)
    results = adaptive.rerank_batch(asked[1::2])
    decisions = [hits[0].node.metadata["rerank_audit"]["adaptive"]["decision"] for hits in results]
    quality = sum(map(ndcg, results, right[1::2])) / len(results)
    print(
        f"\nAdaptiveRerank(margin={chosen.margin}) on these {len(results)} queries: "
        f"{decisions.count('reranked')} reranked, {decisions.count('skipped')} not, nDCG@{CANDIDATES} "
        f"{quality:.4f}"
    )
    if options.json:
        report = {
            "arguments": {name: str(value) for name, value in vars(options).items()},
            "chosen on": {"queries": len(judged[::2]), **asdict(chosen)},
            "measured on": {"queries": len(others), **asdict(effect)},
            "adaptive": {"reranked": decisions.count("reranked"), "quality": quality},
            "judged": [asdict(each) for each in judged],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def ndcg(hits: list[NodeWithScore], right: list[str]) -> float:
    """Return nDCG of a list, over all right pictures of the catalogue."""
    names = [file_name(hit) for hit in hits][:CANDIDATES]
    return float(NDCG().compute(expected_ids=right, retrieved_ids=names).score)


def print_table(queries: list[JudgedQuery], chosen: MarginEffect) -> None:
    """Print what margins do: those that skip certain shares of the queries, and the chosen one."""
    nothing = margin_effect(queries, None)
    retrieved = sum(query.before for query in queries) / len(queries)
    print(f"\n{'margin':>10}{'calls':>9}{'nDCG@9':>10}{'loss':>10}{'± s.e.':>9}{'at random':>12}")
    own = sorted((score_margin(query.scores) or 0.0 for query in queries), reverse=True)
    margins = {own[round(share * len(own)) - 1] for share in SHARES if round(share * len(own))}
    if chosen.margin is not None:
        margins.add(chosen.margin)
    for margin in (None, *sorted(margins, reverse=True)):
        effect = margin_effect(queries, margin)
        at_random = effect.calls * nothing.quality + (1 - effect.calls) * retrieved
        mark = " <- chosen on the other half" if margin == chosen.margin else ""
        name = "none" if margin is None else f"{margin:.4f}"
        print(
            f"{name:>10}{effect.calls:>9.1%}{effect.quality:>10.4f}{effect.loss:>+10.4f}{effect.error:>9.4f}"
            f"{at_random:>12.4f}{mark}"
        )


if __name__ == "__main__":
    main()
