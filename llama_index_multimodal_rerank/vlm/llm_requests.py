"""What a LlamaIndex LLM is sent: a message with pictures, and what servers of OpenAI's protocol take besides.

LLM classes let their own settings go before what a call is given (``OpenAI`` and ``OpenAILike`` do so with
``max_tokens`` and ``additional_kwargs``). Where such a setting stands in the way, a copy of the LLM is asked
that has another; it shares the connections of the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.llms import LLM
from llama_index.core.multi_modal_llms import MultiModalLLM

if TYPE_CHECKING:
    from PIL.Image import Image

_JPEG_QUALITY = 92
_LENGTHS = ("max_tokens", "max_completion_tokens")

AnyLLM = LLM | MultiModalLLM
LLMCall = tuple[Any, dict[str, Any]]
"""The LLM to ask, and the keyword arguments of its ``chat``."""


class LLMRequests:
    """Makes the calls of an LLM.

    Args:
        llm: the LLM; never changed.
        structured_outputs: hold answers to their form by vLLM's own field, not by ``response_format``.
    """

    def __init__(self, llm: AnyLLM, *, structured_outputs: bool) -> None:
        self.llm, self.structured_outputs = llm, structured_outputs
        self._copies: dict[str, Any] = {}

    def free(self) -> LLMCall:
        """Return the call for an answer that is held to nothing."""
        return self.llm, {}

    def json(self, schema: Mapping[str, Any]) -> LLMCall:
        """Return the call for an answer that is held to a JSON schema."""
        if self.structured_outputs:
            return self._call({"extra_body": {"structured_outputs": {"json": dict(schema)}}})
        json_schema = {"name": "ranking", "strict": True, "schema": dict(schema)}
        return self._call({"response_format": {"type": "json_schema", "json_schema": json_schema}})

    def scored(self, num_labels: int, *, max_tokens: int, top_logprobs: int) -> LLMCall:
        """Return the call for a short answer with the log-probabilities of its tokens."""
        kwargs: dict[str, Any] = {"logprobs": True, "top_logprobs": top_logprobs, "max_tokens": max_tokens}
        if self.structured_outputs:
            labels = [str(label) for label in range(1, num_labels + 1)]
            kwargs["extra_body"] = {"structured_outputs": {"choice": labels}}
        return self._call(kwargs)

    def _call(self, kwargs: dict[str, Any]) -> LLMCall:
        """Return the LLM, or a copy in which no setting stands in the way of ``kwargs``."""
        fields = type(self.llm).model_fields
        changes: dict[str, Any] = {
            name: kwargs[name]
            for name in ("max_tokens", "top_logprobs")
            if name in kwargs and name in fields and getattr(self.llm, name) is not None
        }
        theirs = getattr(self.llm, "additional_kwargs", None)
        if isinstance(theirs, dict) and theirs:
            ours = {**theirs, **{name: value for name, value in kwargs.items() if name in theirs}}
            if "extra_body" in kwargs and isinstance(theirs.get("extra_body"), dict):
                ours["extra_body"] = {**theirs["extra_body"], **kwargs["extra_body"]}
            if "max_tokens" in kwargs:
                ours |= {name: kwargs["max_tokens"] for name in _LENGTHS if name in theirs}
                if "max_completion_tokens" in theirs:  # a server takes one of the two
                    kwargs = {name: value for name, value in kwargs.items() if name != "max_tokens"}
                    changes["max_tokens"] = None
            if ours != theirs:
                changes["additional_kwargs"] = ours
        changes = {name: value for name, value in changes.items() if name in fields}
        if not changes:
            return self.llm, kwargs
        key = json.dumps(changes, sort_keys=True, default=repr)
        if key not in self._copies:
            self._copies[key] = self.llm.model_copy(update=changes)
        return self._copies[key], kwargs


def image_message(images: Sequence[Image], prompt: str) -> ChatMessage:
    """Return the message that shows pictures, as JPEG, and asks about them."""
    blocks: list[Any] = [ImageBlock(image=_jpeg(image), image_mimetype="image/jpeg") for image in images]
    return ChatMessage(role=MessageRole.USER, blocks=[*blocks, TextBlock(text=prompt)])


def _jpeg(image: Image) -> bytes:
    buffer = BytesIO()
    # Without chroma subsampling the red frame and coloured type keep their edges.
    image.convert("RGB").save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
