"""Settings of an LLM do not stand in the way of what a request needs, and are not changed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field
from support.openai_server import OpenAICompatible

from llama_index_multimodal_rerank.vlm.llm_requests import LLMRequests


class LikeOpenAI(OpenAICompatible):
    """Lets its own settings go before those of a call, as LlamaIndex' ``OpenAI`` does."""

    api_base: str = "http://localhost:1/v1"
    max_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int = 0
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)

    def body(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        sent = dict(kwargs)
        if self.max_tokens is not None:
            sent["max_tokens"] = self.max_tokens
        if self.logprobs:
            sent |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return {**sent, **self.additional_kwargs}


TEMPLATE = {"chat_template_kwargs": {"enable_thinking": False}}
CHOICE = {"structured_outputs": {"choice": ["1", "2"]}}


@pytest.mark.parametrize(
    ("settings", "length", "extra_body"),
    [
        ({}, {"max_tokens": 4}, CHOICE),
        ({"max_tokens": 512}, {"max_tokens": 4}, CHOICE),
        ({"logprobs": True}, {"max_tokens": 4}, CHOICE),
        ({"additional_kwargs": {"max_tokens": 512}}, {"max_tokens": 4}, CHOICE),
        ({"additional_kwargs": {"max_completion_tokens": 9}}, {"max_completion_tokens": 4}, CHOICE),
        (
            {"max_tokens": 512, "additional_kwargs": {"max_completion_tokens": 9}},
            {"max_completion_tokens": 4},
            CHOICE,
        ),
        ({"additional_kwargs": {"extra_body": TEMPLATE}}, {"max_tokens": 4}, {**TEMPLATE, **CHOICE}),
    ],
)
def test_what_is_sent_for_scores(settings: Any, length: Any, extra_body: Any) -> None:
    llm = LikeOpenAI(**settings)
    before = llm.model_dump()
    requests = LLMRequests(llm, structured_outputs=True)

    asked, kwargs = requests.scored(2, max_tokens=4, top_logprobs=20)

    assert asked.body(kwargs) == {"logprobs": True, "top_logprobs": 20, **length, "extra_body": extra_body}
    assert llm.model_dump() == before
    assert requests.scored(2, max_tokens=4, top_logprobs=20)[0] is asked  # its connections are kept
    assert requests.free() == (llm, {})


def test_the_schema_leaves_the_length_alone() -> None:
    llm = LikeOpenAI(max_tokens=512, additional_kwargs={"extra_body": TEMPLATE})

    asked, kwargs = LLMRequests(llm, structured_outputs=True).json({"type": "object"})
    assert asked.body(kwargs) == {
        "max_tokens": 512,
        "extra_body": {**TEMPLATE, "structured_outputs": {"json": {"type": "object"}}},
    }

    asked, kwargs = LLMRequests(llm, structured_outputs=False).json({"type": "object"})
    assert asked is llm
    assert asked.body(kwargs)["response_format"]["json_schema"]["schema"] == {"type": "object"}
