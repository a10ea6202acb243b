"""What the demo's reranker says of its first result is true, for products that it was not trained on."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reasons import ask, count, read_reason
from llama_index_multimodal_rerank import Phi3VisionRerank
from llama_index_multimodal_rerank.demo.catalogue import draw_catalogue, held_out_queries

EVERY_FOURTH = slice(None, None, 4)


def test_reasons_are_about_the_first_and_true(tmp_path: Path) -> None:
    products = draw_catalogue(tmp_path, count=300)
    questions = held_out_queries([product.look for product in products], composed_rounds=1, other_rounds=1)
    reranker = Phi3VisionRerank(model="demo", device="cpu", dtype="float32", top_n=1)
    reasons, looks = ask(reranker, products, questions[EVERY_FOURTH])
    assert len(reasons) >= 40
    assert all(read_reason(reason) for reason in reasons)
    counts = count(reasons, looks)
    # .95 and more of all 480 questions, see docs/demo.md; less of a few would be chance.
    assert counts["kind"]["named"] == counts["colour"]["named"] == len(reasons)
    assert counts["surface"]["named"] >= len(reasons) / 4  # where it is seen well
    for part in ("kind", "surface", "colour"):
        assert counts[part]["right"] >= 0.87 * counts[part]["named"], part
