"""A server of vLLM's protocol: both strategies, what they cost, what goes wrong, and many queries at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore
from support.openai_server import OpenAICompatible
from support.red_pictures import BEST_FIRST, REDS, RETRIEVED
from support.vllm_server import VLLMClient, VLLMServer, completion

from llama_index_multimodal_rerank import (
    AdaptiveRerank,
    ImageTextQuery,
    LlamaIndexVLM,
    ModelCallError,
    Phi3VisionRerank,
)
from llama_index_multimodal_rerank.reranking.ranking import BadAnswerError

pytestmark = pytest.mark.usefixtures("no_waiting")

LOGPROBS = {str(label): red / 16 for label, red in enumerate(REDS, start=1)}

kinds = pytest.mark.parametrize("kind", ["sync", "async"])
strategies = pytest.mark.parametrize("strategy", ["first_token", "listwise"])


def reranker(server: VLLMServer, *, raw: bool = True, timeout: float = 20.0, **settings: Any) -> Any:
    remote = {name: settings.pop(name) for name in ("max_retries", "structured_outputs") if name in settings}
    model = LlamaIndexVLM(VLLMClient(api_base=server.url, raw=raw), timeout=timeout, **remote)
    return Phi3VisionRerank(model=model, **{"top_n": 6, "caption": False, **settings})


async def ranked(rerank: Any, nodes: Any, query: Any, kind: str = "sync") -> list[NodeWithScore]:
    if kind == "async":
        return await rerank.apostprocess_nodes(nodes, query)
    return rerank.postprocess_nodes(nodes, query)


def ids(result: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in result]


def audit(result: list[NodeWithScore]) -> dict[str, Any]:
    found: dict[str, Any] = dict(result[0].node.metadata["rerank_audit"])
    return found


# -- the strategies ---------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("structured_outputs", [False, True])
@pytest.mark.parametrize("raw", [True, False])
async def test_first_token(nodes: Any, query: Any, kind: str, structured_outputs: bool, raw: bool) -> None:
    with VLLMServer() as server:
        rerank = reranker(server, strategy="first_token", raw=raw, structured_outputs=structured_outputs)
        result = await ranked(rerank, nodes, query, kind)

    assert ids(result) == BEST_FIRST
    weights = [math.exp(red / 16) for red in sorted(REDS, reverse=True)]
    assert [hit.score for hit in result] == pytest.approx([weight / sum(weights) for weight in weights])
    assert result[0].node.metadata["rerank_reason"] == "it is the reddest of all."
    scoring, reason = server.requests
    assert (scoring["logprobs"], scoring["top_logprobs"], scoring["max_tokens"]) == (True, 20, 4)
    assert ("structured_outputs" in scoring) is structured_outputs
    if structured_outputs:
        assert scoring["structured_outputs"] == {"choice": ["1", "2", "3", "4", "5", "6"]}
    assert (
        "Answer with one line, the numbers only, best first" in scoring["messages"][0]["content"][-1]["text"]
    )
    assert "logprobs" not in reason
    asked = reason["messages"][0]["content"][-1]["text"]
    assert "The ranking is [6] > [2] > [4] > [3] > [5] > [1]." in asked
    if raw:
        found = audit(result)
        assert found.pop("cost")["prompt_tokens"] == 4000
        assert found == {
            "expected": 6,
            "source": "first_token",
            "listed": 6,
            "action": "none",
            "attempts": 1,
            "finish_reason": "length",
        }


@kinds
@strategies
async def test_what_it_cost(nodes: Any, query: Any, kind: str, strategy: str) -> None:
    with VLLMServer((429, {}), (500, "no"), None) as server:
        result = await ranked(reranker(server, strategy=strategy, caption=True), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    cost = audit(result)["cost"]
    assert 0 < cost.pop("seconds") < 20
    calls = 3 if strategy == "first_token" else 2  # a caption, the ranking, and its reason
    finished = {"length": 1, "stop": 2} if strategy == "first_token" else {"stop": 2}
    assert cost == {
        "calls": calls,
        "retries": 2,
        "prompt_tokens": 2000 * calls,
        "answer_tokens": 30 * calls,
        "finish_reasons": finished,
    }


@kinds
async def test_permutations_and_windows_by_first_token(nodes: Any, query: Any, kind: str) -> None:
    with VLLMServer() as server:
        shuffled = await ranked(reranker(server, strategy="first_token", permutations=4), nodes, query, kind)
        assert len(server.requests) == 5
        windows = await ranked(
            reranker(server, strategy="first_token", window=4, explain=False), nodes, query, kind
        )

    assert ids(shuffled) == BEST_FIRST
    assert shuffled[0].node.metadata["rerank_confidence"] == pytest.approx(1.0)
    assert shuffled[0].node.metadata["rerank_reason"] == "it is the reddest of all."
    assert ids(windows)[:2] == BEST_FIRST[:2]
    assert audit(windows)["answers"] == 2


@pytest.mark.parametrize("strict", [True, False])
async def test_the_schema_goes_as_response_format_or_as_structured_outputs(
    nodes: Any, query: Any, strict: bool
) -> None:
    with VLLMServer() as server:
        result = await ranked(reranker(server, structured_outputs=strict), nodes, query)

    assert ids(result) == BEST_FIRST
    (request,) = server.requests
    assert not any(name.startswith("guided") for name in request)
    assert ("response_format" in request) is not strict
    schema = (
        request["structured_outputs"]["json"]
        if strict
        else request["response_format"]["json_schema"]["schema"]
    )
    assert schema["properties"]["ranking"]["minItems"] == 6


# -- labels and tokens ------------------------------------------------------------------------


def after_a_blank(labels: Any) -> list[dict[str, float]]:
    return [{"": -0.1, "[": -2.5}, dict(labels)]


def in_brackets(labels: Any) -> list[dict[str, float]]:
    return [{f"[{label}": value for label, value in labels.items()}]


def in_two_ways(labels: Any) -> list[dict[str, float]]:
    half = math.log(0.5)
    ways = {f" {label}": value + half for label, value in labels.items()}
    return [{**ways, **{label: value + half for label, value in labels.items()}}]


@pytest.mark.parametrize("tokens", [after_a_blank, in_brackets, in_two_ways])
@pytest.mark.parametrize("raw", [True, False])
async def test_tokens_that_name_labels(nodes: Any, query: Any, tokens: Any, raw: bool) -> None:
    with VLLMServer(tokens=tokens) as server:
        rerank = reranker(server, strategy="first_token", explain=False, raw=raw)
        result = await ranked(rerank, nodes, query)

    assert ids(result) == BEST_FIRST
    weights = [math.exp(red / 16) for red in sorted(REDS, reverse=True)]
    assert [hit.score for hit in result] == pytest.approx([weight / sum(weights) for weight in weights])


def without_some(labels: Any) -> list[dict[str, float]]:
    kept = {label: labels[label] for label in ("2", "4", "6")}
    return [{**kept, "10": -1.0, "0": -1.0, "7": -1.0, "2nd": -1.0, "²": -1.0}]


@kinds
@pytest.mark.parametrize("policy", ["repair", "retry", "keep_order", "raise"])
async def test_labels_missing_from_the_top_come_last(nodes: Any, query: Any, kind: str, policy: str) -> None:
    with VLLMServer(tokens=without_some) as server:
        rerank = reranker(server, strategy="first_token", explain=False, on_bad_answer=policy)
        if policy == "raise":
            with pytest.raises(BadAnswerError, match=r"3 left out \(1, 3, 5\)"):
                await ranked(rerank, nodes, query, kind)
            return
        result = await ranked(rerank, nodes, query, kind)
        assert len(server.requests) == 1  # to ask again would give the same

    kept = policy == "keep_order"
    assert ids(result) == (RETRIEVED if kept else ["5", "1", "3", "0", "2", "4"])
    found = audit(result)
    assert (found["listed"], found["missing"]) == (3, [1, 3, 5])
    assert found["action"] == ("retrieval_order" if kept else "repaired")
    if not kept:
        assert [hit.score for hit in result][3:] == [0, 0, 0]


@kinds
@pytest.mark.parametrize(
    ("tokens", "begins"), [(lambda labels: [{"The": -0.1}], "The"), (lambda labels: [{"<think>": 0.0}], "<t")]
)
async def test_answers_that_begin_with_no_label(
    nodes: Any, query: Any, kind: str, tokens: Any, begins: str
) -> None:
    with VLLMServer(tokens=tokens) as server:
        result = await ranked(reranker(server, strategy="first_token"), nodes, query, kind)
        assert len(server.requests) == 1  # there is no order to explain

    assert ids(result) == RETRIEVED
    assert [hit.score for hit in result] == pytest.approx([0.9 - i / 100 for i in range(6)])
    found = audit(result)
    assert (found["action"], found["listed"], found["source"]) == ("retrieval_order", 0, "first_token")
    assert found["answer"].startswith(begins)


@kinds
@pytest.mark.parametrize("permutations", [1, 3])
@pytest.mark.parametrize("batched", [False, True])
async def test_a_ranking_stands_without_its_reason(
    nodes: Any, query: Any, kind: str, permutations: int, batched: bool
) -> None:
    with VLLMServer(fails={r"The ranking is \[": (500, {"error": {"message": "out of memory"}})}) as server:
        rerank = reranker(server, strategy="first_token", permutations=permutations, max_retries=1)
        if not batched:
            result = await ranked(rerank, nodes, query, kind)
        elif kind == "sync":
            (result,) = rerank.rerank_batch([(nodes, query)])
        else:
            (result,) = await rerank.arerank_batch([(nodes, query)])

    assert ids(result) == BEST_FIRST
    assert "rerank_reason" not in result[0].node.metadata
    assert "500 Internal Server Error" in audit(result)["reason_error"]
    assert "error" not in audit(result)


# -- servers and classes without log-probabilities --------------------------------------------


@kinds
async def test_a_server_without_logprobs(nodes: Any, query: Any, kind: str) -> None:
    with VLLMServer(gives_logprobs=False) as server:
        with pytest.raises(ModelCallError, match=r"has no log-probabilities .*strategy='listwise'"):
            await ranked(reranker(server, strategy="first_token"), nodes, query, kind)
        assert len(server.requests) == 1
        kept = await ranked(
            reranker(server, strategy="first_token", on_error="keep_order"), nodes, query, kind
        )

    assert ids(kept) == RETRIEVED
    assert "strategy='listwise'" in audit(kept)["error"]


@kinds
@pytest.mark.parametrize("where", ["server", "class"])
async def test_logprobs_that_are_refused(nodes: Any, query: Any, kind: str, where: str) -> None:
    refusal = (400, {"error": {"message": "Unrecognized request argument supplied: logprobs"}})
    with VLLMServer(refusal) as server:
        llm = OpenAICompatible(api_base=server.url, strict=True) if where == "class" else None
        model = LlamaIndexVLM(llm or VLLMClient(api_base=server.url))
        rerank = Phi3VisionRerank(model=model, strategy="first_token", caption=False)
        with pytest.raises(ModelCallError, match="use strategy='listwise'"):
            await ranked(rerank, nodes, query, kind)


# -- faults -----------------------------------------------------------------------------------

REFUSED = {"refusal": "I cannot look at this.", "finish_reason": "stop"}
FILTERED = {"content": None, "finish_reason": "content_filter"}


@kinds
@strategies
@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (REFUSED, {"refusal": "I cannot look at this.", "finish_reason": "stop"}),
        (FILTERED, {"finish_reason": "content_filter"}),
    ],
    ids=["refusal", "content filter"],
)
async def test_refusals_are_recorded(
    nodes: Any, query: Any, kind: str, strategy: str, choice: Any, said: Any
) -> None:
    with VLLMServer((200, completion(choice))) as server:
        result = await ranked(reranker(server, strategy=strategy), nodes, query, kind)
        assert len(server.requests) == 1

    assert ids(result) == RETRIEVED
    found = audit(result)
    assert found["action"] == "retrieval_order"
    assert {name: found[name] for name in said} == said
    assert found["cost"]["finish_reasons"] == {said["finish_reason"]: 1}


@kinds
@strategies
@pytest.mark.parametrize(
    "failure",
    [(429, {}), (500, "no"), "hang", (200, {**completion({}), "choices": []})],
    ids=["429", "500", "hang", "no choices"],
)
async def test_failures_that_pass(nodes: Any, query: Any, kind: str, strategy: str, failure: Any) -> None:
    timeout = 3.0 if failure == "hang" else 20.0
    with VLLMServer(failure) as server:
        result = await ranked(reranker(server, strategy=strategy, timeout=timeout), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    assert audit(result)["cost"]["retries"] == 1


@kinds
async def test_a_list_that_was_cut_short_says_so(nodes: Any, query: Any, kind: str) -> None:
    def cut(choice: Any) -> Any:
        return {"content": choice["content"][:19], "finish_reason": "length"}

    with VLLMServer(cut) as server:
        result = await ranked(reranker(server), nodes, query, kind)

    assert ids(result)[:2] == BEST_FIRST[:2]
    assert sorted(ids(result)) == RETRIEVED
    found = audit(result)
    assert (found["finish_reason"], found["action"]) == ("length", "repaired")


async def test_a_failed_query_has_a_cost_too(nodes: Any, query: Any) -> None:
    with VLLMServer(fails={"redder": (500, "no")}) as server:
        result = await ranked(reranker(server, max_retries=2, on_error="keep_order"), nodes, query)

    cost = audit(result)["cost"]
    assert cost.pop("seconds") > 0
    assert cost == {"calls": 1, "retries": 2}


# -- many queries -----------------------------------------------------------------------------


def many(nodes: Any, picture: str, number: int, failing: Any = ()) -> list[Any]:
    return [
        (nodes[:3], ImageTextQuery(f"{'broken' if i in failing else 'redder'} {i}.", image_path=picture))
        for i in range(number)
    ]


async def batch(rerank: Any, queries: Any, kind: str, **options: Any) -> Any:
    if kind == "async":
        return await rerank.arerank_batch(queries, **options)
    return rerank.rerank_batch(queries, **options)


@pytest.mark.parametrize(("strategy", "kind"), [("first_token", "async"), ("listwise", "sync")])
async def test_200_queries_of_which_ten_fail(nodes: Any, picture: str, kind: str, strategy: str) -> None:
    failing = range(7, 200, 20)
    with VLLMServer(fails={"broken": (500, "no")}, num_crops=1) as server:
        rerank = reranker(
            server,
            strategy=strategy,
            explain=False,
            num_crops=1,
            max_retries=1,
            on_error="keep_order",
        )
        results = await batch(rerank, many(nodes, picture, 200, failing), kind, batch_size=16)

    assert len(failing) == 10
    assert [ids(result) for result in results] == [
        ["0", "1", "2"] if i in failing else ["1", "2", "0"] for i in range(200)
    ]
    for i, result in enumerate(results):
        found = audit(result)
        if i in failing:
            assert "500" in found["error"]
            assert (found["attempts"], found["cost"]["retries"]) == (2, 1)
        else:
            assert found["action"] == "none"
            assert found["cost"]["prompt_tokens"] == 2000
    assert len(server.requests) == 200 + 10
    assert 2 <= server.most_under_way <= 16


@kinds
async def test_a_server_that_is_down_is_not_asked_for_ever(nodes: Any, picture: str, kind: str) -> None:
    with VLLMServer(fails={"redder": (503, "")}, num_crops=1) as server:
        rerank = reranker(server, num_crops=1, max_retries=3, on_error="keep_order")
        results = await batch(rerank, many(nodes, picture, 60), kind, batch_size=4)

    assert [ids(result) for result in results] == [["0", "1", "2"]] * 60
    # 12 retries are shared by 60 queries; 8 failures in a row, and what was under way then.
    assert 8 + 12 <= len(server.requests) <= 8 + 12 + 3
    errors = [audit(result)["error"] for result in results]
    assert sum("was not asked" in error for error in errors) == 60 - (len(server.requests) - 12)
    assert any("the retries that the queries of this batch share are used up" in error for error in errors)
    assert audit(results[-1])["attempts"] == 0
    assert "cost" not in audit(results[-1])


@kinds
@pytest.mark.parametrize("retries", [2, None])
async def test_parts_of_an_adaptive_batch_share_their_retries(
    nodes: Any, picture: str, kind: str, retries: int | None
) -> None:
    with VLLMServer(fails={"redder": (503, "")}, num_crops=1) as server:
        inner = reranker(server, num_crops=1, max_retries=3, on_error="keep_order")
        adaptive = AdaptiveRerank(reranker=inner)
        await batch(adaptive, many(nodes, picture, 40), kind, batch_size=4, retries=retries)

    # The first retries are used up by the first parts; each further query is asked once, until eight failed.
    retried = 10 if retries is None else retries  # one for five queries, 10 at least
    assert 8 + retried <= len(server.requests) <= 8 + retried + 3


def test_retries_of_a_model_that_is_no_servers(nodes: Any, query: Any) -> None:
    local = AdaptiveRerank(reranker=Phi3VisionRerank(model="demo"))
    with pytest.raises(ValueError, match="retries=3 is for models of a server"):
        local.rerank_batch([(nodes, query)], retries=3)
    with pytest.raises(ValueError, match=r"retries=3 is for Phi3VisionRerank .* AdaptiveRerank has its own"):
        AdaptiveRerank(reranker=local).rerank_batch([(nodes, query)], retries=3)


async def test_a_server_that_refuses_is_not_down(nodes: Any, picture: str) -> None:
    with VLLMServer(fails={"redder": (401, {})}, num_crops=1) as server:
        rerank = reranker(server, num_crops=1, on_error="keep_order")
        results = await batch(rerank, many(nodes, picture, 12), "sync", retries=0)

    assert len(server.requests) == 12
    assert all("401" in audit(result)["error"] for result in results)


async def test_one_under_way(nodes: Any, picture: str) -> None:
    with VLLMServer(num_crops=1) as server:
        rerank = reranker(server, num_crops=1)
        assert len(await batch(rerank, many(nodes, picture, 5), "async", batch_size=1)) == 5

    assert server.most_under_way == 1


async def test_settings_of_the_retries_that_cannot_be(nodes: Any, picture: str) -> None:
    with VLLMServer() as server, pytest.raises(ValueError, match=r"retries must be 0 or more .* got -1"):
        await batch(reranker(server), many(nodes, picture, 1), "sync", retries=-1)
    with pytest.raises(
        ValueError, match=r"retries=3 is for models of a server, which LocalPhi3Vision is not"
    ):
        Phi3VisionRerank(model="demo").rerank_batch([], retries=3)
