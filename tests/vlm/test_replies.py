"""Whoever wrote the model: what it replies is held against what was asked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_multimodal_rerank import ModelCallError, Phi3VisionRerank
from llama_index_multimodal_rerank.vlm.calls import (
    Generate,
    Prefill,
    RankLabels,
    ScoreLabels,
    aexecute,
    execute,
)
from llama_index_multimodal_rerank.vlm.protocols import LabelRanking, RankRequest

NAN = float("nan")


class Replies:
    """Replies what it was given, to every kind of call."""

    model_name = "custom"

    def __init__(self, reply: Any) -> None:
        self.reply = reply

    def generate(self, images: Any, prompt: str, *, max_new_tokens: int) -> Any:
        return self.reply

    def label_logprobs(self, requests: Any) -> Any:
        return self.reply

    def rank_labels(self, requests: Any, *, max_new_tokens: int, order: Any = None) -> Any:
        return self.reply


class AsyncReplies(Replies):
    async def agenerate(self, images: Any, prompt: str, *, max_new_tokens: int) -> Any:
        return self.reply


def asked(n: int = 3) -> RankRequest:
    return RankRequest((), "Which?", n)


def ranked(order: Any, probabilities: Any = (0.5, 0.9, 1.0), text: Any = "") -> list[LabelRanking]:
    return [LabelRanking(order, probabilities, text)]


BAD = {
    "short": (ranked((2, 0)), r"gave the order \(2, 0\) for 3 labels; it must hold each of 0 to 2"),
    "long": (ranked((2, 0, 1, 3)), r"the order \(2, 0, 1, 3\) for 3 labels"),
    "empty": (ranked((), ()), r"the order \(\) for 3 labels"),
    "twice": (ranked((2, 0, 2)), r"the order \(2, 0, 2\)"),
    "from one": (ranked((3, 1, 2)), r"the order \(3, 1, 2\)"),
    "negative": (ranked((-1, 0, 1)), r"the order \(-1, 0, 1\)"),
    "texts": (ranked(("2", "0", "1")), "which are no whole numbers"),
    "decimals": (ranked((2.0, 0.0, 1.0)), "which are no whole numbers"),
    "no order": (ranked(None), "which are no whole numbers"),
    "few probabilities": (ranked((2, 0, 1), (0.5,)), r"the probabilities \(0.5,\) for 3 labels"),
    "no probabilities": (ranked((2, 0, 1), None), "the probabilities None for 3 labels"),
    "NaN": (ranked((2, 0, 1), (0.5, NAN, 1.0)), "the probability nan; its arithmetic has failed"),
    "a text": (ranked((2, 0, 1), ("a", 1, 1)), "the probability 'a', which is no number"),
    "no text": (ranked((2, 0, 1), text=None), "answered with NoneType, expected str"),
    "a tuple": ([(2, 0, 1)], "answered with tuple, expected LabelRanking"),
    "too many": (ranked((2, 0, 1)) * 2, "gave 2 answers to 1 requests"),
    "none": ([], "gave 0 answers to 1 requests"),
    "nothing": (None, "answered with NoneType, expected a list of 1 answers"),
    "a generator": (iter(ranked((2, 0, 1))), "expected a list of 1 answers"),
}


@pytest.mark.parametrize(("reply", "fault"), BAD.values(), ids=BAD.keys())
def test_rankings_that_lose_or_invent_labels(reply: Any, fault: str) -> None:
    with pytest.raises(ModelCallError, match=f"custom .*{fault}"):
        execute(Replies(reply), RankLabels((asked(),), 0))


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ([[1.0, NAN, 2.0]], "the label logit nan"),
        ([[1.0, math.inf, 2.0]], "the label logit inf"),
        ([[1.0, None, 2.0]], "the label logit None, which is no number"),
        ([[1.0, 2.0]], "gave 2 label logits for 3 labels"),
        ([np.zeros(3)], "answered with ndarray, expected list"),
        (np.zeros((1, 3)), "answered with ndarray, expected a list of 1 answers"),
    ],
)
def test_label_logits_that_are_none(reply: Any, fault: str) -> None:
    with pytest.raises(ModelCallError, match=fault):
        execute(Replies(reply), ScoreLabels((asked(),)))


@pytest.mark.parametrize("reply", [None, 7, b"[1]", ["[1]"]])
async def test_answers_that_are_no_texts(reply: Any) -> None:
    for model in (Replies(reply), AsyncReplies(reply)):
        with pytest.raises(ModelCallError, match="expected str"):
            execute(model, Generate((asked(),), 1))
        with pytest.raises(ModelCallError, match="expected str"):
            await aexecute(model, Generate((asked(),), 1))


class Handles(Replies):
    """Replies with a handle that has the scores ``scores``, and ranks as it was given."""

    def __init__(self, scores: Any, rankings: Any) -> None:
        super().__init__(None)
        self.scores, self.rankings = scores, rankings

    def prefill_requests(self, requests: Any) -> Any:
        return Handle(self.scores, self.rankings)


class Handle:
    def __init__(self, scores: Any, rankings: Any) -> None:
        self.label_logprobs, self.rankings = scores, rankings

    def rank_labels(self, *, max_new_tokens: int, order: Any = None) -> Any:
        return self.rankings


def test_what_a_handle_replies_is_held_against_the_requests() -> None:
    model = Handles([[1.0, 2.0, 3.0]], ranked((2, 0, 1)))
    scored = execute(model, Prefill((asked(),)))
    assert scored.logprobs == [[1.0, 2.0, 3.0]]
    call = RankLabels((asked(),), 9, prefilled=scored.prefilled)
    assert execute(model, call) == ranked((2, 0, 1))
    with pytest.raises(ModelCallError, match=r"was to write the order \(0, 1, 2\), and wrote \(2, 0, 1\)"):
        execute(model, replace(call, order=(0, 1, 2)))
    with pytest.raises(ModelCallError, match="gave 2 label logits for 3 labels"):
        execute(Handles([[1.0, 2.0]], None), Prefill((asked(),)))


def test_a_model_without_handles_is_asked_for_scores() -> None:
    scored = execute(Replies([[1.0, 2.0, 3.0]]), Prefill((asked(),)))
    assert (scored.logprobs, scored.prefilled) == ([[1.0, 2.0, 3.0]], None)


def test_a_number_that_is_too_large_is_named_as_the_models_fault() -> None:
    with pytest.raises(ModelCallError, match="custom gave no answer: OverflowError"):
        execute(Replies([[10**400, 1.0, 2.0]]), ScoreLabels((asked(),)))
    with pytest.raises(ModelCallError, match="custom gave no answer: OverflowError"):
        execute(Replies(ranked((2, 0, 1), (10**400, 1.0, 1.0))), RankLabels((asked(),), 0))


def test_another_order_than_the_one_to_be_explained() -> None:
    model = Replies(ranked((2, 0, 1)))
    assert execute(model, RankLabels((asked(),), 9, (2, 0, 1)))
    with pytest.raises(ModelCallError, match=r"was to write the order \(0, 1, 2\), and wrote \(2, 0, 1\)"):
        execute(model, RankLabels((asked(),), 9, (0, 1, 2)))


def test_numbers_of_other_libraries_are_numbers() -> None:
    reply = [LabelRanking(list(np.array([2, 0, 1])), list(np.float32([0.5, 1, 1])), "")]  # type: ignore[arg-type]
    assert execute(Replies(reply), RankLabels((asked(),), 0)) == ranked((2, 0, 1), (0.5, 1.0, 1.0))
    logits = [[np.float32(1.0), 2, -math.inf]]
    assert execute(Replies(logits), ScoreLabels((asked(),))) == [[1.0, 2.0, -math.inf]]


@pytest.mark.parametrize("order", [(2, 0), (2, 0, 1, 3), (2, 0, 2)])
async def test_a_constrained_model_of_ones_own_loses_no_candidate(order: tuple[int, ...]) -> None:
    nodes = [NodeWithScore(node=TextNode(text=f"text {i}", id_=str(i)), score=0.9 - i / 10) for i in range(3)]
    model = Replies(ranked(order, (1.0,) * len(order)))

    with pytest.raises(ModelCallError, match="it must hold each of 0 to 2 exactly once"):
        Phi3VisionRerank(model=model, num_crops=1).postprocess_nodes(nodes, query_str="any")
    kept = Phi3VisionRerank(model=model, num_crops=1, on_error="keep_order")
    for result in (
        kept.postprocess_nodes(nodes, query_str="any"),
        await kept.apostprocess_nodes(nodes, query_str="any"),
    ):
        assert [hit.node.node_id for hit in result] == ["0", "1", "2"]
        assert "must hold each of" in result[0].node.metadata["rerank_audit"]["error"]


@given(st.lists(st.floats(-50, 50) | st.just(-math.inf), min_size=1, max_size=25))
def test_label_logits_become_probabilities(logits: list[float]) -> None:
    nodes = [NodeWithScore(node=TextNode(text="x", id_=str(i)), score=0.5) for i in range(len(logits))]
    rerank = Phi3VisionRerank(
        model=Replies([logits]), strategy="first_token", explain=False, window=25, top_n=25, num_crops=1
    )
    result = rerank.postprocess_nodes(nodes, query_str="any")

    scores = [hit.score or 0.0 for hit in result]
    if len(logits) > 1:
        assert sum(scores) == pytest.approx(1.0)
        order = [int(hit.node.node_id) for hit in result]
        assert order == sorted(range(len(logits)), key=lambda label: (-logits[label], label))
