"""What the response of a LlamaIndex LLM says: text or arguments of a call, why it ended, and refusals.

LLM classes keep the last two in ``ChatResponse.raw``, in the form of their server. Known are those of OpenAI
and what is compatible with it, Anthropic, Google and Ollama.
"""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.base.llms.types import ChatResponse

from .protocols import Answer

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
_CALLS: tuple[Path, ...] = (("function", "arguments"), ("arguments",), ("input",))


def read_response(response: ChatResponse) -> Answer:
    """Return a response as an answer; one that calls a tool instead of writing is the call's arguments."""
    message = response.message
    places = (response.raw, message.additional_kwargs, response.additional_kwargs)
    return Answer(
        message.content or _arguments(response),
        finish_reason=_first(places, _FINISH_REASONS),
        refusal=_first(places, _REFUSALS),
    )


def _arguments(response: ChatResponse) -> str:
    message = response.message
    calls = [
        getattr(block, "tool_kwargs", None) for block in message.blocks if block.block_type == "tool_call"
    ]
    calls += [
        next((found for path in _CALLS if (found := _at(call, path)) is not None), None)
        for call in message.additional_kwargs.get("tool_calls") or ()
    ]
    texts = [call if isinstance(call, str) else json.dumps(call, default=str) for call in calls if call]
    return texts[0] if texts else ""


def _first(places: tuple[Any, ...], paths: tuple[Path, ...]) -> str | None:
    for place in places:
        for path in paths:
            found = _at(place, path)
            if found:
                return str(getattr(found, "name", found))
    return None


def _at(value: Any, path: Path) -> Any:
    """Return what stands at a path of keys, attributes and indices, or None."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, (list, tuple)) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, dict) else getattr(value, step, None)
    return value
