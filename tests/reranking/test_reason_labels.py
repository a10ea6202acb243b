"""A reason calls candidates by places in the list that its reader has, not by numbers on an unseen sheet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore
from PIL import Image
from support.vlm_doubles import ConstrainedTextModel, TextModel

from llama_index_multimodal_rerank import ImageTextQuery, Phi3VisionRerank, image_node
from llama_index_multimodal_rerank.reranking.reason_labels import by_place, relabel

REDS = [20, 200, 90, 150, 60, 230, 120, 40, 180]
"""Best first they are 5, 1, 8, 3, 6, 2, 4, 7, 0, and so their labels 6, 2, 9, 4, 7, 3, 5, 8, 1."""

QUERY = ImageTextQuery("the reddest")


def shown(folder: Path, reds: list[int]) -> list[NodeWithScore]:
    hits = []
    for number, red in enumerate(reds):
        path = folder / f"{number}.png"
        Image.new("RGB", (30, 20), (red, 100, 250 - red)).save(path)
        hits.append(NodeWithScore(node=image_node(path, id_=str(number)), score=1 - number / 100))
    return hits


class Says(ConstrainedTextModel):
    """Gives this reason for every list."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def rank_labels(self, requests: Any, *, max_new_tokens: int, order: Any = None) -> Any:
        rankings = super().rank_labels(requests, max_new_tokens=max_new_tokens, order=order)
        return [replace(each, text=self.reason if max_new_tokens else "") for each in rankings]


class Writes(TextModel):
    """Gives a reason that calls the first and the last of its own list by their labels."""

    def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> str:
        answer = super().generate(images, prompt, max_new_tokens=max_new_tokens)
        if "Ranking" not in answer:
            return answer
        labels = answer.partition("\n")[0].removeprefix("Ranking: ").split(" > ")
        return f"Ranking: {' > '.join(labels)}\nReason: {labels[0]} is redder than {labels[-1]}."


def metadata_of(result: list[NodeWithScore]) -> list[dict[str, Any]]:
    return [hit.node.metadata for hit in result]


@pytest.mark.parametrize("strategy", ["listwise", "first_token"])
def test_labels_become_places_in_the_list(tmp_path: Path, strategy: Any) -> None:
    rerank = Phi3VisionRerank(model=Says("[6] beats [2], and all 3 of [9]"), strategy=strategy, top_n=9)
    result = metadata_of(rerank.postprocess_nodes(shown(tmp_path, REDS), QUERY))
    assert result[0]["rerank_reason"] == "#1 beats #2, and all 3 of #3"
    assert [each["rerank_label"] for each in result] == [6, 2, 9, 4, 7, 3, 5, 8, 1]


def test_a_candidate_that_is_not_returned_is_said_to_be_none(tmp_path: Path) -> None:
    rerank = Phi3VisionRerank(model=Says("[6] beats [2] and [1]"), top_n=2)
    result = metadata_of(rerank.postprocess_nodes(shown(tmp_path, REDS), QUERY))
    assert result[0]["rerank_reason"] == "#1 beats #2 and #9 (not returned)"


def test_labels_of_the_last_window_are_those_of_its_sheet(tmp_path: Path) -> None:
    """The best came up from another window: on the last sheet it has the number of where it came."""
    reds = [10, 20, 30, 40, 50, 60, 250, 240, 70, 80]
    rerank = Phi3VisionRerank(model=Writes(), window=4, stride=2, top_n=10)
    result = rerank.postprocess_nodes(shown(tmp_path, reds), QUERY)
    assert [hit.node.node_id for hit in result][:2] == ["6", "7"]
    # The last sheet showed 0, 1 and the two that had come up, as [3] and [4]; 0 is the least red of them.
    assert result[0].node.metadata["rerank_reason"] == "#1 is redder than #4."
    labels = {hit.node.node_id: hit.node.metadata.get("rerank_label") for hit in result}
    assert {node: label for node, label in labels.items() if label is not None} == {
        "0": 1,
        "1": 2,
        "6": 3,
        "7": 4,
    }


@pytest.mark.parametrize("model", [Writes, lambda: Says("[6] is redder than [1].")])
def test_labels_of_shuffled_sheets(tmp_path: Path, model: Any) -> None:
    """One answer's reason is taken, or a sheet in order is asked about: both name what was meant."""
    rerank = Phi3VisionRerank(model=model(), permutations=3, top_n=9)
    result = metadata_of(rerank.postprocess_nodes(shown(tmp_path, REDS), QUERY))
    assert result[0]["rerank_reason"] == "#1 is redder than #9."
    assert not any("rerank_label" in each for each in result)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("[2] is best", "#1 is best"),
        ("[ 2 ], [1,3] and [1 and 2]", "#1, #2, #3 and #2, #1"),
        ("**[2]**: 2 of 3 buttons", "**#1**: 2 of 3 buttons"),
        ("all 3 of [2]", "all 3 of #1"),
        ("a label [2024], [4], [0] and [02]", "a label [2024], [4], [0] and [02]"),
        ("[2, 4] of them", "[2, 4] of them"),
        ("see [1](https://example.org)", "see [1](https://example.org)"),
        ("[²] [٢] [x] []", "[²] [٢] [x] []"),
        ("2 beats 1", "2 beats 1"),
    ],
)
def test_only_numbers_in_brackets_that_are_on_the_sheet_are_labels(reason: str, expected: str) -> None:
    assert by_place(reason, [7, 4, 5], [4, 7, 5, 6], top_n=4) == expected


def test_a_label_is_not_replaced_twice() -> None:
    assert relabel("[1] [2] [3]", {1: "[2]", 2: "[3]", 3: "[1]"}) == "[2] [3] [1]"


def test_time_grows_no_faster_than_a_reason() -> None:
    assert relabel("[1" + ",1" * 50_000, {1: "#1"}).startswith("[1,1")
