"""A served model: a real HTTP server on localhost that fails in all the usual ways."""

import json

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore
from PIL import Image
from support.openai_server import OpenAICompatible, OpenAIServer, leaves_one_out, right

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    LlamaIndexVLM,
    ModelCallError,
    Phi3VisionRerank,
    image_node,
)
from llama_index_multimodal_rerank.vlm import retries as retries

REDS = [20, 200, 90, 150, 60, 230, 120, 40, 180]
BEST_FIRST = ["5", "1", "8", "3", "6", "2", "4", "7", "0"]
RATE_LIMIT = (429, {"error": {"message": "429: at most 5 requests per 3 s"}})
SERVER_ERROR = (500, "Internal Server Error [3] > [1]")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(retries, "_backoff", lambda state: 0.0)


@pytest.fixture
def nodes(tmp_path):
    nodes = []
    for i, red in enumerate(REDS):
        Image.new("RGB", (40, 30), (red, 100, 250 - red)).save(tmp_path / f"{i}.png")
        nodes.append(NodeWithScore(node=image_node(tmp_path / f"{i}.png", id_=str(i)), score=0.9 - i / 100))
    return nodes


@pytest.fixture
def query(tmp_path):
    Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / "query.png")
    return ImageTextQuery("redder", image_path=str(tmp_path / "query.png"))


def reranker(server, *, timeout=20.0, max_retries=3, strict=False, **kwargs):
    llm = OpenAICompatible(api_base=server.url, strict=strict)
    return Phi3VisionRerank(
        model=LlamaIndexVLM(llm, timeout=timeout, max_retries=max_retries), top_n=9, **kwargs
    )


async def both(rerank, nodes, query, kind):
    if kind == "async":
        return await rerank.apostprocess_nodes(nodes, query)
    return rerank.postprocess_nodes(nodes, query)


def ids(result):
    return [hit.node.node_id for hit in result]


kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@kinds
async def test_a_good_answer(nodes, query, kind):
    with OpenAIServer() as server:
        result = await both(reranker(server), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    metadata = result[0].node.metadata
    assert metadata["rerank_reason"] == "it is the reddest of 9"
    assert metadata["rerank_query_caption"] == "a caption"
    cost = metadata["rerank_audit"].pop("cost")
    assert metadata["rerank_audit"] == {
        "expected": 9,
        "source": "answer",
        "listed": 9,
        "action": "none",
        "attempts": 1,
    }
    assert (cost.pop("seconds") > 0, cost) == (True, {"calls": 2, "retries": 0})
    (request,) = server.requests
    sent = request["response_format"]["json_schema"]
    assert sent["strict"] is True
    ranking = sent["schema"]["properties"]["ranking"]
    assert (ranking["minItems"], ranking["maxItems"]) == (9, 9)
    assert ranking["items"]["enum"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert sent["schema"]["required"] == ["ranking", "reason"]
    assert sent["schema"]["additionalProperties"] is False


@kinds
async def test_one_of_nine_left_out(nodes, query, kind):
    with OpenAIServer(leaves_one_out) as server:
        result = await both(reranker(server), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    audit = result[0].node.metadata["rerank_audit"]
    assert (audit["missing"], audit["action"]) == ([1], "repaired")
    assert result[0].node.metadata["rerank_reason"] == "one was too dull"


@kinds
async def test_left_out_then_asked_again(nodes, query, kind):
    with OpenAIServer(leaves_one_out) as server:
        result = await both(reranker(server, on_bad_answer="retry"), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    assert result[0].node.metadata["rerank_audit"]["attempts"] == 2
    again = server.requests[1]["messages"][0]["content"][-1]["text"]
    assert "1 left out (1)" in again


@kinds
@pytest.mark.parametrize(
    "failures",
    [[RATE_LIMIT], [SERVER_ERROR, SERVER_ERROR], [(503, "")], [(200, '{"choices": [{"mess')], ["hang"]],
    ids=["429", "500 twice", "503", "malformed body", "hang"],
)
async def test_failures_that_pass(nodes, query, kind, failures):
    timeout = 3.0 if failures == ["hang"] else 20.0  # enough for the answer that follows
    with OpenAIServer(*failures) as server:
        result = await both(reranker(server, timeout=timeout, caption=False), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    assert len(server.requests) == len(failures) + 1
    assert result[0].node.metadata["rerank_audit"]["action"] == "none"


@kinds
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RATE_LIMIT, "429"),
        (SERVER_ERROR, "500"),
        ((401, {"error": {"message": "bad key"}}), "401"),
        ((200, "Bad Gateway [5] > [3]"), "JSONDecodeError"),
        ((200, {"choices": []}), "IndexError"),
        ("hang", "no answer within 1.5 s"),
    ],
    ids=["429", "500", "401", "no JSON", "no choices", "hang"],
)
async def test_failures_that_stay(nodes, query, kind, failure, said):
    options = {"timeout": 1.5 if failure == "hang" else 20.0, "max_retries": 1, "caption": False}
    with OpenAIServer(*[failure] * 12) as server:
        kept = await both(reranker(server, on_error="keep_order", **options), nodes, query, kind)
        asked = len(server.requests)
        with pytest.raises(ModelCallError, match=said):
            await both(reranker(server, **options), nodes, query, kind)

    # Nothing is lost, nothing is taken for an answer, and the audit says what happened.
    assert ids(kept) == [str(i) for i in range(9)]
    audit = kept[0].node.metadata["rerank_audit"]
    assert audit["action"] == "retrieval_order"
    assert said in audit["error"]
    assert asked == {"401": 1, "IndexError": 2}.get(said, 2)


@kinds
@pytest.mark.parametrize(
    ("content", "order"),
    [
        ("429 Too Many Requests: 5 requests per 3 s", [str(i) for i in range(9)]),
        ("", [str(i) for i in range(9)]),
        ('{"ranking": [9, 8, 7, 6', ["8", "7", "6", "0", "1", "2", "3", "4", "5"]),
        ("Ranking: [9] > [0] > [9] > [12] > [1]", ["8", "0", "1", "2", "3", "4", "5", "6", "7"]),
        ("I would say: [2] > [9], of the 9.", ["1", "8", "0", "2", "3", "4", "5", "6", "7"]),
    ],
)
async def test_malformed_contents(nodes, query, kind, content, order):
    with OpenAIServer(lambda _: content) as server:
        result = await both(reranker(server), nodes, query, kind)

    assert ids(result) == order
    audit = result[0].node.metadata["rerank_audit"]
    assert audit["action"] == ("retrieval_order" if order[0] == "0" else "repaired")
    assert audit.get("answer", "") == content


@kinds
async def test_a_content_of_null_is_an_empty_answer(nodes, query, kind):
    body = {"choices": [{"message": {"role": "assistant", "content": None}}]}
    with OpenAIServer((200, body)) as server:
        result = await both(reranker(server), nodes, query, kind)

    assert ids(result) == [str(i) for i in range(9)]
    assert result[0].node.metadata["rerank_audit"]["action"] == "retrieval_order"


@kinds
async def test_a_server_without_schemas_is_asked_without_one(nodes, query, kind):
    with OpenAIServer(takes_schema=False) as server:
        rerank = reranker(server, caption=False)
        first = await both(rerank, nodes, query, kind)
        second = await both(rerank, nodes, query, kind)

    assert ids(first) == ids(second) == BEST_FIRST
    assert ["response_format" in request for request in server.requests] == [True, False, False]


@kinds
async def test_a_client_without_schemas_is_asked_without_one(nodes, query, kind):
    with OpenAIServer() as server:
        result = await both(reranker(server, strict=True), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    assert "response_format" not in server.requests[0]


@kinds
async def test_permutations_are_asked_side_by_side(nodes, query, kind):
    with OpenAIServer() as server:
        result = await both(reranker(server, permutations=5, caption=False), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    assert len(server.requests) == 5
    assert result[0].node.metadata["rerank_confidence"] == pytest.approx(1.0)
    assert result[0].node.metadata["rerank_reason"] == "it is the reddest of 9"


def test_retry_after_is_honoured(monkeypatch):
    import httpx
    import tenacity

    def wait(headers):
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        response = httpx.Response(429, headers=headers, request=httpx.Request("POST", "http://x"))
        error = httpx.HTTPStatusError("429", request=response.request, response=response)
        state.set_exception((type(error), error, None))
        return retries._wait(state)

    assert wait({"retry-after": "7"}) == 7.0
    assert wait({"retry-after": "3600"}) == 60.0
    assert wait({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) == 0.0  # the back-off of this test
    assert wait({}) == 0.0


class StatusError(Exception):
    def __init__(self, status):
        super().__init__("x")
        self.status_code = status


class APITimeoutError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (StatusError(429), True),
        (StatusError(500), True),
        (StatusError(529), True),
        (StatusError(408), True),
        (StatusError(400), False),
        (StatusError(401), False),
        (StatusError(404), False),
        (APITimeoutError(), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (json.JSONDecodeError("x", "y", 0), True),
        (ValueError("429"), False),
        (KeyError("x"), False),
    ],
    ids=repr,
)
def test_which_failures_pass(error, passing):
    assert retries.is_transient(error) is passing


@pytest.mark.parametrize(
    ("llm", "kwargs", "error", "message"),
    [
        ("gpt-4o", {}, TypeError, "must be a LlamaIndex LLM, got str"),
        (MockLLM(), {}, ValueError, "MockLLM is not set to chat, so LlamaIndex would drop the pictures"),
        (
            OpenAICompatible(api_base="x"),
            {"timeout": 0},
            ValueError,
            "timeout must be above 0 seconds, got 0",
        ),
        (
            OpenAICompatible(api_base="x"),
            {"max_retries": -1},
            ValueError,
            "max_retries must be 0 or more, got -1",
        ),
    ],
)
def test_mistakes(llm, kwargs, error, message):
    with pytest.raises(error, match=message):
        LlamaIndexVLM(llm, **kwargs)


def test_an_llm_is_taken_as_it_is_and_its_secrets_are_not_written_down():
    rerank = Phi3VisionRerank(model=OpenAICompatible(api_base="http://user:secret@host/v1"))

    assert isinstance(rerank.vision_language_model, LlamaIndexVLM)
    assert rerank.model_name == "served-model"
    assert "secret" not in rerank.to_json()
    with pytest.raises(ValueError, match=r"window=10; set window to 2 to 9, or use strategy='listwise'"):
        Phi3VisionRerank(model=OpenAICompatible(api_base="x"), strategy="first_token", window=10)


def test_the_server_double_is_right():
    assert json.loads(right([2, 1]))["ranking"] == [2, 1]
