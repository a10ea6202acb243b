"""What the response of a LlamaIndex LLM says: text or arguments of a call, why it ended, refusals, tokens.

LLM classes keep the last three in ``ChatResponse.raw``, in the form of their server. Known are those of
OpenAI and what is compatible with it, Anthropic, Google and Ollama.
"""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.base.llms.types import ChatResponse

from .protocols import Answer, Usage

Path = tuple[str | int, ...]

_FINISH_REASONS: tuple[Path, ...] = (
    ("choices", 0, "finish_reason"),
    ("stop_reason",),
    ("candidates", 0, "finish_reason"),
    ("done_reason",),
    ("finish_reason",),
)
_REFUSALS: tuple[Path, ...] = (
    ("choices", 0, "message", "refusal"),
    ("refusal",),
    ("prompt_feedback", "block_reason_message"),
    ("prompt_feedback", "block_reason"),
    ("candidates", 0, "finish_message"),
)
_PROMPT_TOKENS: tuple[Path, ...] = (
    ("usage", "prompt_tokens"),
    ("usage", "input_tokens"),
    ("usage_metadata", "prompt_token_count"),
    ("prompt_eval_count",),
    ("prompt_tokens",),
)
_ANSWER_TOKENS: tuple[Path, ...] = (
    ("usage", "completion_tokens"),
    ("usage", "output_tokens"),
    ("usage_metadata", "candidates_token_count"),
    ("eval_count",),
    ("completion_tokens",),
)
_CALLS: tuple[Path, ...] = (("function", "arguments"), ("arguments",), ("input",))


def read_response(response: ChatResponse) -> Answer:
    """Return a response as an answer; one that calls a tool instead of writing is the call's arguments."""
    message = response.message
    places = (response.raw, message.additional_kwargs, response.additional_kwargs)
    return Answer(
        message.content or _arguments(response),
        finish_reason=_first(places, _FINISH_REASONS),
        refusal=_first(places, _REFUSALS),
        usage=Usage(_count(places, _PROMPT_TOKENS), _count(places, _ANSWER_TOKENS)),
    )


def _arguments(response: ChatResponse) -> str:
    message = response.message
    calls = [
        getattr(block, "tool_kwargs", None) for block in message.blocks if block.block_type == "tool_call"
    ]
    calls += [
        next((found for path in _CALLS if (found := at_path(call, path)) is not None), None)
        for call in message.additional_kwargs.get("tool_calls") or ()
    ]
    texts = [call if isinstance(call, str) else json.dumps(call, default=str) for call in calls if call]
    return texts[0] if texts else ""


def _count(places: tuple[Any, ...], paths: tuple[Path, ...]) -> int | None:
    """Return a number of tokens, if one of the places has it."""
    found = (at_path(place, path) for place in places for path in paths)
    # Zero is what some classes say where their server says nothing.
    return next((count for count in found if type(count) is int and count > 0), None)


def _first(places: tuple[Any, ...], paths: tuple[Path, ...]) -> str | None:
    for place in places:
        for path in paths:
            found = at_path(place, path)
            if found:
                return str(getattr(found, "name", found))
    return None


def at_path(value: Any, path: Path) -> Any:
    """Return what stands at a path of keys, attributes and indices, or None."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, (list, tuple)) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, dict) else getattr(value, step, None)
    return value
