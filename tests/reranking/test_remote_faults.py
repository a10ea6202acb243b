"""What goes wrong with a served model, and what is said about it."""

from __future__ import annotations

import json
import logging
import pickle
import socket
from typing import Any

import httpx
import pytest
from llama_index.core.base.llms import types as llm_types
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.schema import ImageNode, NodeWithScore
from support.openai_server import OpenAICompatible, OpenAIServer
from support.red_pictures import BEST_FIRST, RETRIEVED
from support.vlm_doubles import ConstrainedTextModel, Scripted, TextModel

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    LlamaIndexVLM,
    ModelCallError,
    Phi3VisionRerank,
)

pytestmark = pytest.mark.usefixtures("no_waiting")

NO_CHOICES = (200, {"choices": []})
NULL_CHOICES = (200, {"choices": None, "error": {"message": "overloaded"}})
FILTERED = (400, {"error": {"code": "content_filter", "message": "The response was filtered"}})
UNNAMED = (400, {"error": {"message": "invalid request"}})
NAMED = (400, {"error": {"message": "Unknown parameter: 'response_format'."}})

kinds = pytest.mark.parametrize("kind", ["sync", "async"])


def reranker(model: LlamaIndexVLM, **kwargs: Any) -> Phi3VisionRerank:
    return Phi3VisionRerank(model=model, top_n=6, caption=False, **kwargs)


def served(server: OpenAIServer, *, max_retries: int = 1) -> LlamaIndexVLM:
    return LlamaIndexVLM(OpenAICompatible(api_base=server.url), max_retries=max_retries)


async def ranked(rerank: Phi3VisionRerank, nodes: Any, query: Any, kind: str) -> list[NodeWithScore]:
    if kind == "async":
        return await rerank.apostprocess_nodes(nodes, query)
    return rerank.postprocess_nodes(nodes, query)


def ids(result: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in result]


def audit(result: list[NodeWithScore]) -> dict[str, Any]:
    found: dict[str, Any] = result[0].node.metadata["rerank_audit"]
    return found


# -- the schema -------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("failure", [NO_CHOICES, NULL_CHOICES], ids=["no choices", "choices null"])
async def test_a_response_without_a_choice_is_asked_for_again_with_the_schema(
    nodes: Any, query: Any, kind: str, failure: Any
) -> None:
    with OpenAIServer(failure) as server:
        model = served(server)
        result = await ranked(reranker(model), nodes, query, kind)

    assert ids(result) == BEST_FIRST
    assert model.json_schema is True
    assert ["response_format" in request for request in server.requests] == [True, True]


@kinds
async def test_a_content_filter_does_not_switch_the_schema_off(nodes: Any, query: Any, kind: str) -> None:
    with OpenAIServer(FILTERED) as server:
        model = served(server)
        rerank = reranker(model, on_error="keep_order")
        filtered = await ranked(rerank, nodes, query, kind)
        result = await ranked(rerank, nodes, query, kind)

    assert ids(filtered) == RETRIEVED
    assert ids(result) == BEST_FIRST
    assert model.json_schema is True
    assert ["response_format" in request for request in server.requests] == [True, True]


@kinds
async def test_a_refusal_that_does_not_name_the_schema_is_believed_the_third_time(
    nodes: Any, query: Any, kind: str
) -> None:
    with OpenAIServer(UNNAMED, lambda order: json.dumps(order), takes_schema=True) as server:
        model = served(server)
        await ranked(reranker(model), nodes, query, kind)
        assert model.json_schema is True
        await ranked(reranker(model), nodes, query, kind)  # passes with the schema: that was not it
        for _ in range(3):
            assert model.json_schema is True
            server.script[:] = [UNNAMED]
            assert ids(await ranked(reranker(model), nodes, query, kind)) == BEST_FIRST

    assert model.json_schema is False
    sent = ["response_format" in request for request in server.requests]
    assert sent == [True, False, True, *[True, False] * 3]


@kinds
async def test_a_refusal_that_names_the_schema_is_believed_at_once(nodes: Any, query: Any, kind: str) -> None:
    with OpenAIServer(NAMED) as server:
        model = served(server)
        assert ids(await ranked(reranker(model), nodes, query, kind)) == BEST_FIRST

    assert model.json_schema is False


@kinds
@pytest.mark.parametrize("options", [{}, {"permutations": 2}, {"explain": False}], ids=str)
async def test_schema_and_prompt_agree_on_the_reason(nodes: Any, query: Any, kind: str, options: Any) -> None:
    with OpenAIServer() as server:
        rerank = reranker(served(server), window=3, stride=1, **options)
        await ranked(rerank, nodes, query, kind)

    wanted = []
    for request in server.requests:
        prompt = request["messages"][0]["content"][-1]["text"]
        schema = request["response_format"]["json_schema"]["schema"]
        assert ("reason" in schema["properties"]) == ('"reason"' in prompt)
        assert schema["required"] == list(schema["properties"])
        wanted.append('"reason"' in prompt)
    # Of four windows only the last, which knows the best, is asked why.
    last = [options.get("explain", True)] * options.get("permutations", 1)
    assert wanted == [False] * 3 * len(last) + last


# -- no answer --------------------------------------------------------------------------------


@kinds
async def test_a_dead_server(nodes: Any, query: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as listener:  # bound, so that nobody else is there, but not listening
        listener.bind(("127.0.0.1", 0))
        model = LlamaIndexVLM(
            OpenAICompatible(api_base=f"http://127.0.0.1:{listener.getsockname()[1]}"), max_retries=3
        )
        result = await ranked(reranker(model, on_error="keep_order"), nodes, query, kind)
        with pytest.raises(
            ModelCallError, match="served-model gave no answer in 4 attempts: ConnectError"
        ) as it:
            await ranked(reranker(model), nodes, query, kind)

    assert ids(result) == RETRIEVED
    assert audit(result)["attempts"] == it.value.attempts == 4
    assert pickle.loads(pickle.dumps(it.value)).attempts == 4
    # Nothing was ranked, so the scores are those of the retrieval.
    assert [hit.score for hit in result] == [hit.score for hit in nodes]
    assert "<unknown>" not in caplog.text
    assert "served-model: attempt 3 of 4 failed (ConnectError: " in caplog.text


@kinds
async def test_attempts_with_and_without_the_schema_are_counted(nodes: Any, query: Any, kind: str) -> None:
    with OpenAIServer(UNNAMED, (500, ""), (500, "")) as server:
        result = await ranked(reranker(served(server), on_error="keep_order"), nodes, query, kind)

    assert audit(result)["attempts"] == len(server.requests) == 3


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.5, 0.4, 0.3], [0.4, 0.3, 0.0]),
        ([-1.0, -2.0, -3.0], [-2.0, -3.0, -3.0]),
        ([0.2, 0.9, 0.4], [0.2, 0.2, 0.0]),
        ([0.2, None, 0.4], [0.0, 0.0, 0.0]),
        ([0.2, float("nan"), 0.4], [0.0, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("answer", [RuntimeError("no"), "no list"], ids=["no answer", "a bad answer"])
def test_scores_where_nothing_was_ranked(
    nodes: Any, query: Any, scores: Any, expected: Any, answer: Any
) -> None:
    first = ImageNode(image_path="/gone.png", id_="gone")
    given = [
        NodeWithScore(node=node, score=score)
        for node, score in zip([first, nodes[0].node, nodes[1].node], scores, strict=True)
    ]
    rerank = Phi3VisionRerank(model=Scripted(answer), on_error="keep_order", top_n=3, caption=False)
    result = rerank.postprocess_nodes(given, query)

    assert ids(result) == ["0", "1", "gone"]
    assert [hit.score for hit in result] == expected


def test_a_single_candidate_that_nobody_looked_at_keeps_its_score(nodes: Any, query: Any) -> None:
    (hit,) = Phi3VisionRerank(model=Scripted(), explain=False).postprocess_nodes(nodes[:1], query)
    assert hit.score == nodes[0].score
    assert audit([hit]) == {"expected": 1, "source": "none", "listed": 0, "action": "none", "attempts": 0}


def test_a_query_picture_that_cannot_be_read_is_no_attempt(nodes: Any) -> None:
    rerank = Phi3VisionRerank(model=TextModel(), on_error="keep_order")
    result = rerank.postprocess_nodes(nodes, ImageTextQuery(image_path="/gone.png"))
    assert audit(result)["attempts"] == 0


def test_a_local_model_is_asked_once(nodes: Any, query: Any) -> None:
    class Broken(ConstrainedTextModel):
        def rank_labels(self, requests: Any, **kwargs: Any) -> Any:
            raise MemoryError("out of memory")

    rerank = Phi3VisionRerank(model=Broken(), on_error="keep_order")
    assert audit(rerank.postprocess_nodes(nodes, query))["attempts"] == 1


# -- why an answer ends -----------------------------------------------------------------------


class Says(OpenAICompatible):
    """Gives one response."""

    api_base: str = ""
    response: Any = None

    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return self.response  # type: ignore[no-any-return]

    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return self.response  # type: ignore[no-any-return]


class Attributes:
    """As the classes of client libraries hold it."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def openai(finish_reason: str, refusal: str | None = None) -> Attributes:
    message = Attributes(content=None, refusal=refusal)
    return Attributes(choices=[Attributes(finish_reason=finish_reason, message=message)])


@kinds
@pytest.mark.parametrize(
    ("raw", "finish_reason"),
    [
        (openai("length"), "length"),
        ({"choices": [{"finish_reason": "length"}]}, "length"),
        ({"stop_reason": "max_tokens"}, "max_tokens"),
        (Attributes(candidates=[Attributes(finish_reason=Attributes(name="MAX_TOKENS"))]), "MAX_TOKENS"),
        ({"done_reason": "length"}, "length"),
    ],
    ids=["OpenAI", "compatible", "Anthropic", "Google", "Ollama"],
)
async def test_why_an_answer_ends_is_in_the_audit(
    nodes: Any, query: Any, kind: str, raw: Any, finish_reason: str
) -> None:
    message = ChatMessage(role="assistant", content='{"ranking": [3, 1')
    llm = Says(response=ChatResponse(message=message, raw=raw))
    result = await ranked(reranker(LlamaIndexVLM(llm)), nodes, query, kind)

    assert audit(result)["finish_reason"] == finish_reason
    assert ids(result)[0] == "2"


@kinds
async def test_a_refusal_is_in_the_audit_and_in_the_error(nodes: Any, query: Any, kind: str) -> None:
    response = ChatResponse(
        message=ChatMessage(role="assistant", content=None),
        raw=openai("stop", "I can't compare people. " * 50),
    )
    model = LlamaIndexVLM(Says(response=response))
    result = await ranked(reranker(model), nodes, query, kind)

    assert ids(result) == RETRIEVED
    assert audit(result)["refusal"].startswith("I can't compare people.")
    assert len(audit(result)["refusal"]) == 300
    json.dumps(audit(result))
    with pytest.raises(ValueError, match="it refuses: I can't compare people"):
        await ranked(reranker(model, on_bad_answer="raise"), nodes, query, kind)


@kinds
async def test_a_content_filter_that_empties_the_answer(nodes: Any, query: Any, kind: str) -> None:
    response = ChatResponse(message=ChatMessage(role="assistant", content=None), raw=openai("content_filter"))
    model = LlamaIndexVLM(Says(response=response))

    assert audit(await ranked(reranker(model), nodes, query, kind))["finish_reason"] == "content_filter"
    with pytest.raises(ValueError, match=r"declares no list \(finish reason: content_filter\)"):
        await ranked(reranker(model, on_bad_answer="raise"), nodes, query, kind)


def called(arguments: Any) -> ChatMessage:
    """A message that calls a tool, as LlamaIndex's integrations give it."""
    if not hasattr(llm_types, "ToolCallBlock"):
        pytest.skip("this llama-index-core has no blocks of tool calls")
    return ChatMessage(
        role="assistant", blocks=[llm_types.ToolCallBlock(tool_name="rank", tool_kwargs=arguments)]
    )


def called_in_kwargs(arguments: Any) -> ChatMessage:
    """A message that calls a tool, as older integrations give it."""
    text = json.dumps(arguments) if isinstance(arguments, dict) else arguments
    call = Attributes(function=Attributes(name="rank", arguments=text))
    return ChatMessage(role="assistant", content=None, additional_kwargs={"tool_calls": [call]})


@kinds
@pytest.mark.parametrize("message", [called, called_in_kwargs])
@pytest.mark.parametrize(
    "arguments", [{"ranking": [6, 2, 4, 3, 5, 1]}, '{"ranking": [6, 2, 4, 3, 5, 1]}'], ids=type
)
async def test_an_answer_in_a_tool_call(
    nodes: Any, query: Any, kind: str, arguments: Any, message: Any
) -> None:
    llm = Says(response=ChatResponse(message=message(arguments)))
    assert ids(await ranked(reranker(LlamaIndexVLM(llm)), nodes, query, kind)) == BEST_FIRST


# -- the log ----------------------------------------------------------------------------------

FORGED = "x\nCRITICAL root: all is lost\x1b[2J\u202e"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name.startswith("llama_index_multimodal")
    ]


def test_names_of_files_forge_no_lines_of_the_log(query: Any, caplog: pytest.LogCaptureFixture) -> None:
    node = NodeWithScore(node=ImageNode(image_path=f"/{FORGED}.png", id_=FORGED), score=1.0)
    with caplog.at_level(logging.INFO):
        Phi3VisionRerank(model=TextModel()).postprocess_nodes([node], query)
        lost = ImageTextQuery(image_path=f"/{FORGED}.png")
        Phi3VisionRerank(model=TextModel(), on_error="keep_order").postprocess_nodes([node], lost)

    assert len(lines(caplog)) >= 2
    assert all(line.isprintable() for line in lines(caplog))
    assert any("x\\nCRITICAL root" in line for line in lines(caplog))


@kinds
async def test_words_of_servers_forge_no_lines_of_the_log(
    nodes: Any, query: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Says):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            if "response_format" in kwargs:
                raise httpx.HTTPStatusError(
                    f"response_format {FORGED}",
                    request=httpx.Request("POST", "http://x"),
                    response=httpx.Response(422),
                )
            raise ConnectionError(FORGED)

        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return self.chat(messages, **kwargs)

    with caplog.at_level(logging.INFO):
        rerank = reranker(LlamaIndexVLM(Fails(), max_retries=1), on_error="keep_order")
        await ranked(rerank, nodes, query, kind)

    assert len(lines(caplog)) >= 2
    assert all(line.isprintable() for line in lines(caplog))
