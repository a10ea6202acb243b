"""LLMs for tests of agents: they call the search tool, and answer with what its output says is first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM

TOOL = "search_images"


def answer_of(output: str) -> str:
    """Return what an LLM would say that has read a tool's output, and nothing else."""
    found = json.loads(output)
    if "error" in found:
        return f"I could not search: {found['error']}"
    return f"The best is {found['results'][0]['file']}."


def calling_llm(*calls: Mapping[str, Any]) -> MockFunctionCallingLLM:
    """Return an LLM with function calls: it makes these, one after the other, and answers after the last.

    A value ``"$id"`` in a call is the id of the first result of the call before.
    """

    def respond(messages: Sequence[ChatMessage], **kwargs: Any) -> ChatMessage:
        outputs = [message.content or "" for message in messages if message.role == MessageRole.TOOL]
        if len(outputs) == len(calls):
            return ChatMessage(role=MessageRole.ASSISTANT, content=answer_of(outputs[-1]))
        call = ToolCallBlock(
            tool_call_id=f"call-{len(outputs)}", tool_name=TOOL, tool_kwargs=_filled(calls, outputs)
        )
        return ChatMessage(role=MessageRole.ASSISTANT, blocks=[call])

    return MockFunctionCallingLLM(response_generator=respond)


class ReActLLM(CustomLLM):
    """An LLM without function calls: it writes what ``ReActAgent`` reads.

    Attributes:
        calls: as for :func:`calling_llm`.
        prompts: what it was given.
    """

    calls: list[dict[str, Any]]
    prompts: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        """Of a model without function calls."""
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Write the next step."""
        self.prompts.append(prompt)
        outputs = [part.partition("\n")[0] for part in prompt.split("Observation: ")[1:]]
        outputs = [output for output in outputs if output.startswith("{")]
        if len(outputs) == len(self.calls):
            return CompletionResponse(text=f"Thought: I can answer.\nAnswer: {answer_of(outputs[-1])}")
        arguments = json.dumps(_filled(self.calls, outputs))
        return CompletionResponse(
            text=f"Thought: I need to search.\nAction: {TOOL}\nAction Input: {arguments}"
        )

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Write the next step, at once."""
        response = self.complete(prompt)
        yield CompletionResponse(text=response.text, delta=response.text)


def _filled(calls: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> dict[str, Any]:
    arguments = dict(calls[len(outputs)])
    for name, value in arguments.items():
        if value == "$id":
            arguments[name] = json.loads(outputs[-1])["results"][0]["id"]
    return arguments
