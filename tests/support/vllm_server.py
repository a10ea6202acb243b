"""A server that speaks chat completions as vLLM describes them, with its limits, and a client for it.

Of vLLM's OpenAI-compatible server it has what a reranker meets: fields beside OpenAI's
(``structured_outputs``), ``logprobs`` with ``top_logprobs``, ``usage``, and its refusals. It is stricter in
one thing: vLLM ignores fields that it does not know and logs them, this server answers with 400.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
from llama_index.core.base.llms.types import LogProb
from llama_index.core.llms import ChatMessage, ChatResponse

from .openai_server import OpenAICompatible, OpenAIServer, look_roughly, sent_image

MAX_LOGPROBS = 20
FIELDS = {
    *("messages", "model", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "max_tokens"),
    *("max_completion_tokens", "n", "presence_penalty", "response_format", "seed", "stop", "stream"),
    *("temperature", "top_p", "tools", "tool_choice", "user", "top_k", "min_p", "chat_template_kwargs"),
    *("structured_outputs", "mm_processor_kwargs", "priority", "add_generation_prompt"),
    *("continue_final_message", "return_token_ids", "cache_salt"),
}
CONSTRAINTS = {"json", "regex", "choice", "grammar", "json_object", "structural_tag"}
Tokens = Callable[[Mapping[str, float]], list[dict[str, float]]]


def plain_tokens(labels: Mapping[str, float]) -> list[dict[str, float]]:
    """The log-probabilities of one token, as most tokenizers write a digit."""
    return [{**labels, "The": -7.0, "\n": -8.0}]


class VLLMServer(OpenAIServer):
    """Ranks by redness.

    Args:
        script: how requests for a ranking are answered, one after the other: ``(status, body)``,
            ``"hang"``, a function from the right answer to the choice that is sent instead, or None for the
            right answer. After the end of the script all are answered rightly.
        fails: how requests are answered whose prompt matches a pattern; instead of the script.
        tokens: from the log-probabilities of labels to those of the tokens at each place of the answer.
        num_crops: what sheets are drawn for.
        gives_logprobs: whether log-probabilities are given to those who ask.
    """

    def __init__(
        self,
        *script: Any,
        fails: Mapping[str, Any] | None = None,
        tokens: Tokens = plain_tokens,
        num_crops: int = 16,
        gives_logprobs: bool = True,
    ) -> None:
        super().__init__(*script)
        self.fails, self.tokens = dict(fails or {}), tokens
        self.num_crops, self.gives_logprobs = num_crops, gives_logprobs
        self.captions = self.under_way = self.most_under_way = 0

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        status, reply = self._reply(body)
        with self._lock:
            self.under_way -= 1
        if status:
            self.send(handler, status, reply)

    def _reply(self, body: dict[str, Any]) -> tuple[int, Any]:
        fault = _fault(body)
        if fault:
            return 400, {"error": {"message": fault, "type": "BadRequestError", "code": 400}}
        prompt = next(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")
        asked = re.search(r"Rank all (\d+) candidates", prompt)
        with self._lock:
            if asked is None:
                self.captions += 1
                return 200, completion({"content": "a caption"})
            self.requests.append(body)
            failing = [step for pattern, step in self.fails.items() if re.search(pattern, prompt)]
            step = failing[0] if failing else self.script.pop(0) if self.script else None
        if step == "hang":
            self._release.wait(30)
            return 0, None
        if isinstance(step, tuple):
            return step[0], step[1]
        if "Do not write it again" in prompt:
            return 200, completion({"content": "Reason: it is the reddest of all."})
        seen = look_roughly(sent_image(body), int(asked[1]), num_crops=self.num_crops)
        red = [10 * round(value / 10) for value in seen]  # as it was before JPEG
        choice = self._right(body, red)
        return 200, completion(step(choice) if step else choice)

    def _right(self, body: dict[str, Any], red: list[int]) -> dict[str, Any]:
        best_first = sorted(range(1, len(red) + 1), key=lambda label: -red[label - 1])
        if not body.get("logprobs"):
            return {"content": json.dumps({"ranking": best_first, "reason": "it is the reddest"})}
        total = math.log(sum(math.exp(value / 16) for value in red))
        places = self.tokens({str(label): red[label - 1] / 16 - total for label in best_first})
        if "choice" in (body.get("structured_outputs") or {}):  # the mask comes before the log-probabilities
            places = [{token: value for token, value in places[-1].items() if re.fullmatch("[1-9]", token)}]
        places = places[: body.get("max_tokens") or None]
        content = [_position(place, body["top_logprobs"]) for place in places]
        return {
            "content": "".join(place["token"] for place in content),
            "finish_reason": "length",
            "logprobs": {"content": content} if self.gives_logprobs else None,
        }


def completion(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A response with one choice."""
    message = {"role": "assistant", "content": choice.get("content"), "refusal": choice.get("refusal")}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-model",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": choice.get("logprobs"),
                "finish_reason": choice.get("finish_reason", "stop"),
                "stop_reason": None,
            }
        ],
        "usage": {"prompt_tokens": 2000, "completion_tokens": 30, "total_tokens": 2030},
    }


def _fault(body: dict[str, Any]) -> str | None:
    unknown = sorted(set(body) - FIELDS)
    if unknown:
        return f"Extra inputs are not permitted: {', '.join(unknown)}"
    if body.get("stream"):
        return "this server does not stream"
    top = body.get("top_logprobs") or 0
    if top and not body.get("logprobs"):
        return "when using `top_logprobs`, `logprobs` must be set to true."
    if top > MAX_LOGPROBS:
        return f"Requested sample logprobs of {top}, which is greater than max allowed: {MAX_LOGPROBS}"
    constraints = body.get("structured_outputs") or {}
    if len(set(constraints) & CONSTRAINTS) != len(constraints) or len(constraints) > 1:
        return (
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        )
    if (body.get("response_format") or {}).get("type") not in (None, "text", "json_object", "json_schema"):
        return "response_format has an unknown type"
    return None


def _position(logprobs: Mapping[str, float], top: int) -> dict[str, Any]:
    best = sorted(logprobs.items(), key=lambda item: -item[1])
    named = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in best]
    masked = [{"token": f"<{number}>", "logprob": -9999.0, "bytes": []} for number in range(top)]
    return {**named[0], "top_logprobs": [*named, *masked][:top]}


class VLLMClient(OpenAICompatible):
    """As ``OpenAILike``: merges ``extra_body``, and hands on what the server says.

    Attributes:
        raw: hand on the whole response; else log-probabilities alone, in LlamaIndex' form.
    """

    raw: bool = True

    def _body(self, messages: list[ChatMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        extra = kwargs.pop("extra_body", {})
        return {**super()._body(messages, kwargs), **extra}

    def _response(self, response: httpx.Response) -> ChatResponse:
        response.raise_for_status()
        body = response.json()
        choice = body["choices"][0]
        message = ChatMessage(role="assistant", content=choice["message"]["content"])
        if self.raw:
            return ChatResponse(message=message, raw=body)
        content = (choice["logprobs"] or {}).get("content") or []
        logprobs = [[LogProb(**top) for top in place["top_logprobs"]] for place in content]
        return ChatResponse(message=message, logprobs=logprobs or None)
