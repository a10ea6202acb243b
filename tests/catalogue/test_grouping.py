"""GroupByProduct: one picture of each product, and what it says of the others."""

from __future__ import annotations

import asyncio
import doctest
import pickle
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_multimodal_rerank import CollapseDuplicates, GroupByProduct
from llama_index_multimodal_rerank.catalogue import grouping


def hit(id_: str, score: float | None = 0.5, **metadata: Any) -> NodeWithScore:
    return NodeWithScore(node=TextNode(id_=id_, text="t", metadata=metadata), score=score)


def ids(hits: list[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in hits]


def test_the_example() -> None:
    found = doctest.testmod(grouping)
    assert (found.attempted, found.failed) == (7, 0)


def test_the_first_of_each_stays() -> None:
    hits = [hit("a1", 0.9, p="a"), hit("b1", 0.8, p="b"), hit("a2", 0.7, p="a"), hit("c", 0.6, p="c")]
    best = GroupByProduct(group_id="p").postprocess_nodes(hits)
    assert [(one.node.node_id, one.score) for one in best] == [("a1", 0.9), ("b1", 0.8), ("c", 0.6)]
    assert best[0].node.metadata == {"p": "a", "same_product": ["a2"]}
    assert best[0].node.excluded_llm_metadata_keys == ["same_product"]
    assert best[0].node.excluded_embed_metadata_keys == ["same_product"]
    assert hits[0].node.metadata == {"p": "a"}
    assert ids(asyncio.run(GroupByProduct(group_id="p", top_k=2).apostprocess_nodes(hits))) == ["a1", "b1"]


def test_nodes_without_the_key_are_products_of_their_own() -> None:
    hits = [
        hit("a"),
        hit("b", p=None),
        hit("c", p=""),
        hit("d", p=""),
        hit("e", p="a"),
        hit("f", p=0),
        hit("g", p=0),
    ]
    assert ids(GroupByProduct(group_id="p").postprocess_nodes(hits)) == ["a", "b", "c", "d", "e", "f"]
    assert GroupByProduct().postprocess_nodes([]) == []


def test_what_was_left_out_before_is_not_lost() -> None:
    first = hit("a1", p="a")
    second = hit("a2", p="a", duplicates=["copy 1", "copy 2"], query_image_left_out=["query"])
    again = hit("a1", p="a")
    best = GroupByProduct(group_id="p").postprocess_nodes([first, second, again])
    assert ids(best) == ["a1"]
    assert best[0].node.metadata["same_product"] == ["a2", "copy 1", "copy 2", "query"]


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_a_value_that_tells_nothing_apart(value: Any) -> None:
    with pytest.raises(ValueError, match=r"TextNode 'x': metadata\['p'\] must be a string or a number"):
        GroupByProduct(group_id="p").postprocess_nodes([hit("x", p=value)])


@pytest.mark.parametrize("options", [{"group_id": ""}, {"top_k": 0}, {"group": "p"}])
def test_options_that_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"group_id|top_k|group"):
        GroupByProduct(**options)


@pytest.mark.parametrize("numbers", [(0, 3), (9, 0)])
def test_rows_needed(numbers: tuple[int, int]) -> None:
    assert GroupByProduct.rows_needed(1, 5) == 1
    assert GroupByProduct.rows_needed(18, 3) == 52
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        GroupByProduct.rows_needed(*numbers)


@pytest.mark.parametrize("postprocessor", [GroupByProduct(top_k=3), CollapseDuplicates(tolerance=9)])
def test_they_are_kept_and_sent(postprocessor: Any) -> None:
    fields = postprocessor.to_dict()
    assert pickle.loads(pickle.dumps(postprocessor)).to_dict() == fields
    assert type(postprocessor).from_dict(fields).to_dict() == fields
    assert postprocessor.to_dict()["class_name"] == type(postprocessor).__name__
