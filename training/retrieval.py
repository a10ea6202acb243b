"""How well an embedder finds products of looks that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_index_multimodal_rerank.demo.drawing import draw_product
from llama_index_multimodal_rerank.demo.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import COMPOSED, DemoQuery, make_query
from llama_index_multimodal_rerank.demo.sources import draw_source
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE

# Below the seeds of training pictures, and apart from each other.
_PRODUCT_SEEDS = 500_000
_QUERY_SEEDS = 600_000


def evaluate(embedder: VisualizedBGE, *, catalogue: int, queries: int, seed: int) -> dict[str, Any]:
    """Search a drawn catalogue for products of held-out looks.

    Args:
        embedder: what embeds queries and products, as users do: from pictures of 224 pixels.
        catalogue: number of products, of all looks in equal shares.
        queries: number of composed queries, of all families in turn; as many again in wordings that were
            not trained, and a quarter as many of texts alone and of pictures alone.
        seed: a number from 0.

    Returns:
        By group of queries, and for all composed ones by family: their number, the share with an answer in
        first place and among the first nine, and the mean reciprocal rank of the first answer.
    """
    rng = np.random.default_rng(seed)
    looks = _catalogue(catalogue, rng)
    products = embedder.encode(
        [draw_product(look, _PRODUCT_SEEDS + i) for i, look in enumerate(looks)], show_progress=True
    )
    targets = [look for look in looks if look.held_out]
    groups = {
        "composed": (COMPOSED, queries, False),
        "composed, unseen wordings": (COMPOSED, queries, True),
        "text": (("text",), max(1, queries // 4), False),
        "image": (("image",), max(1, queries // 4), False),
    }
    report: dict[str, Any] = {"catalogue": catalogue, "seed": seed}
    drawn = 0
    for name, (families, count, unseen) in groups.items():
        asked = [
            make_query(
                families[i % len(families)],
                targets[int(rng.integers(len(targets)))],
                rng,
                unseen_wording=unseen,
            )
            for i in range(count)
        ]
        vectors = embedder.encode(
            [_item(query, _QUERY_SEEDS + drawn + i) for i, query in enumerate(asked)], show_progress=True
        )
        drawn += count
        ranks = _first_answers(asked, vectors @ products.T, looks)
        report[name] = _measures(ranks)
        if len(families) > 1:
            report[name]["families"] = {
                family: _measures(ranks[[query.family == family for query in asked]])
                for family in dict.fromkeys(query.family for query in asked)
            }
    return report


def _catalogue(count: int, rng: np.random.Generator) -> list[Look]:
    pairs = [(kind, surface) for kind in KINDS for surface in SURFACES]
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    # the held-out pairs first, so that the smallest catalogue holds some
    order.sort(key=lambda pair: not Look(*pair, COLOURS[0]).held_out)
    colours = {pair: rng.permutation(len(COLOURS)) for pair in order}
    looks = []
    for i in range(count):
        pair = order[i % len(order)]
        looks.append(Look(*pair, COLOURS[colours[pair][i // len(order) % len(COLOURS)]]))
    return looks


def _item(query: DemoQuery, seed: int) -> Any:
    if query.picture is None:
        return query.text
    is_source = isinstance(query.picture, str)
    picture = draw_source(query.picture, seed) if is_source else draw_product(query.picture, seed)
    return (query.text, picture)


def _first_answers(
    queries: Sequence[DemoQuery], scores: npt.NDArray[np.float32], looks: Sequence[Look]
) -> npt.NDArray[np.int64]:
    """Return for each query the rank of the best answer, from 1."""
    ranks = []
    for query, row in zip(queries, scores, strict=True):
        answers = np.array([query.is_answered_by(look) for look in looks])
        ranks.append(1 + int((row[~answers] >= row[answers].max()).sum()))
    return np.array(ranks)


def _measures(ranks: npt.NDArray[np.int64]) -> dict[str, Any]:
    return {
        "queries": len(ranks),
        "hit_rate@1": round(float((ranks <= 1).mean()), 4),
        "hit_rate@9": round(float((ranks <= 9).mean()), 4),
        "mrr": round(float((1 / ranks).mean()), 4),
    }
