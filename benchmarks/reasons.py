"""Are the reasons of the demo's reranker true? What they say is held against what the first candidate shows.

    python -m benchmarks.reasons --json out.json

The questions are those of ``examples/evaluate.py``, all for products that no demo model was trained on. A
part that a reason does not name is not counted as right. A reason that cannot be read, or that is about
another candidate than the first, is wrong in all parts.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llama_index.core import VectorStoreIndex
from tqdm import tqdm

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    LocalPhi3Vision,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    load_image_nodes,
)
from llama_index_multimodal_rerank.demo.catalogue import (
    Product,
    draw_catalogue,
    draw_query_picture,
    held_out_queries,
)
from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import SURFACE_WORDS, DemoQuery

PARTS = ("kind", "surface", "colour")
_SURFACES = {SURFACE_WORDS[surface][0]: surface for surface in SURFACES}
_REASON = re.compile(
    rf"#1 fits best: an? (?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<kind>{'|'.join(KINDS)})"
    rf"(?: with (?P<surface>{'|'.join(_SURFACES)}))?\."
)


class Said(NamedTuple):
    """What a reason names; None where it names nothing."""

    kind: str | None
    surface: str | None
    colour: str | None


def read_reason(reason: str | None) -> Said | None:
    """Return what a reason of the demo's reranker names; None if it is none of its sentences."""
    match = _REASON.fullmatch(reason or "")
    if match is None:
        return None
    surface = match["surface"]
    return Said(match["kind"], surface and _SURFACES[surface], match["colour"])


def count(reasons: Sequence[str | None], looks: Sequence[Look]) -> dict[str, dict[str, int]]:
    """Count, for each part, how often it is named, and how often rightly.

    Args:
        reasons: one a question.
        looks: what the candidate shows that each is about.

    Returns:
        For each part: ``questions``, ``named`` and ``right``. A reason that cannot be read
        names all wrongly.
    """
    named, right = Counter[str](), Counter[str]()
    for reason, look in zip(reasons, looks, strict=True):
        said = read_reason(reason)
        for part in PARTS:
            value = None if said is None else getattr(said, part)
            named[part] += said is None or value is not None
            right[part] += value == getattr(look, part)
    return {part: {"questions": len(reasons), "named": named[part], "right": right[part]} for part in PARTS}


def ask(
    reranker: Phi3VisionRerank, products: Sequence[Product], questions: Sequence[DemoQuery]
) -> tuple[list[str | None], list[Look]]:
    """Return the reasons of a reranker for what the demo's embedder retrieves, and what each is about."""
    by_name = {product.path.name: product.look for product in products}
    index = VectorStoreIndex(
        load_image_nodes([product.path for product in products]),
        embed_model=VisualizedBGEEmbedding(model_name="demo"),
    )
    retriever = index.as_retriever(similarity_top_k=9)
    reasons, looks = [], []
    for number, question in enumerate(tqdm(questions, desc="Asking", unit="query")):
        picture = None if question.picture is None else draw_query_picture(question.picture, number)
        query = ImageTextQuery(question.text, image=picture)
        best = reranker.postprocess_nodes(retriever.retrieve(query), query)[0]
        reasons.append(best.node.metadata.get("rerank_reason"))
        looks.append(by_name[best.node.metadata["file_name"]])
    return reasons, looks


def main() -> None:
    """Read the command line, ask, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reranker", default="demo", help="a folder with another one of its kind")
    parser.add_argument("--products", type=int, default=900, help="pictures of the catalogue")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of composed queries, about 120 each")
    parser.add_argument("--other-rounds", type=int, default=2, help="rounds of other queries, about 60 each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    model = LocalPhi3Vision(options.reranker, num_crops=1) if options.reranker != "demo" else "demo"
    reranker = Phi3VisionRerank(model=model, top_n=1, explain="closer_look")
    with tempfile.TemporaryDirectory() as folder:
        products = draw_catalogue(Path(folder), count=options.products, seed=options.seed, show_progress=True)
        questions = held_out_queries(
            [product.look for product in products],
            composed_rounds=options.rounds,
            other_rounds=options.other_rounds,
            seed=options.seed,
        )
        reasons, looks = ask(reranker, products, questions)
    counts = count(reasons, looks)
    print(f"{len(reasons)} questions for products that were not trained on")
    for part, each in counts.items():
        share = f"{each['right'] / each['named']:.3f}" if each["named"] else "-"
        print(f"  {part:<8} named in {each['named']:>3}, right in {each['right']:>3}: {share}")
    if options.json:
        arguments = {name: str(value) for name, value in vars(options).items()}
        options.json.write_text(
            json.dumps({"arguments": arguments, **counts}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
