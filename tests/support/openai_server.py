"""An OpenAI-compatible server on localhost that looks at the pictures it is sent, and a client for it."""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    CustomLLM,
    LLMMetadata,
)
from PIL import Image

from llama_index_multimodal_rerank.reranking.sheet_layout import plan_sheet

from .vlm_doubles import look

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: nothing here speaks TLS, and to read the certificates of a default client takes 50 ms."""


class OpenAIServer:
    """Serves POST /v1/chat/completions; each request is answered by the next of ``script``, then rightly.

    A script entry is ``(status, body)``, ``"hang"``, or a function of the right order that returns
    the content of a good answer.
    """

    def __init__(self, *script: Any, takes_schema: bool = True) -> None:
        self.script, self.takes_schema = list(script), takes_schema
        self.requests: list[dict[str, Any]] = []
        self.sheets: list[Image.Image] = []
        self._lock = threading.Lock()
        self._release = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/chat/completions"
                owner.answer(self, body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        prompt = next(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")
        asked = re.search(r"Rank all (\d+) candidates", prompt)
        with self._lock:
            if asked is None:
                return self.send(handler, 200, _completion("a caption"))
            self.requests.append(body)
            if "response_format" in body and not self.takes_schema:
                return self.send(handler, 400, {"error": {"message": "response_format is not supported"}})
            step = self.script.pop(0) if self.script else right
        if step == "hang":
            self._release.wait(30)
            return None
        if isinstance(step, tuple):
            return self.send(handler, *step)
        image = sent_image(body)
        self.sheets.append(image)
        red = look_roughly(image, int(asked.group(1)))
        order = sorted(range(len(red)), key=lambda label: -red[label])
        return self.send(handler, 200, _completion(step([label + 1 for label in order])))

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, body: Any, retry_after: str = "0") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        if status in (429, 503):
            handler.send_header("Retry-After", retry_after)
        handler.end_headers()
        handler.wfile.write(data)


def right(order: list[int]) -> str:
    return json.dumps({"ranking": order, "reason": "it is the reddest of 9"})


def leaves_one_out(order: list[int]) -> str:
    return json.dumps({"ranking": order[:-1], "reason": "one was too dull"})


def _completion(content: str | None) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        ],
    }


def sent_image(body: dict[str, Any]) -> Image.Image:
    (url,) = [
        part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"
    ]
    header, _, data = url.partition(",")
    assert header == "data:image/jpeg;base64"
    return Image.open(BytesIO(base64.b64decode(data))).convert("RGB")


def look_roughly(image: Image.Image, n: int, *, num_crops: int = 16) -> list[int]:
    """As ``look``, through the losses of JPEG."""
    frame = plan_sheet(n, query=True, num_crops=num_crops).query.frame
    assert np.abs(np.subtract(image.getpixel((frame.left + 3, frame.top + 3)), (170, 0, 0))).max() < 20
    image.paste((170, 0, 0), (frame.left, frame.top, frame.left + 6, frame.top + 6))
    return look(image, n, num_crops=num_crops)


class OpenAICompatible(CustomLLM):
    """The least a LlamaIndex LLM for such a server has to do."""

    api_base: str
    strict: bool = False

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, model_name="served-model")

    def _body(self, messages: list[ChatMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.strict and kwargs:
            raise TypeError(f"chat() got an unexpected keyword argument {next(iter(kwargs))!r}")
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_uri(block)}}
            if isinstance(block, ImageBlock)
            else {"type": "text", "text": block.text}
            for block in messages[0].blocks
        ]
        return {"model": "served-model", "messages": [{"role": "user", "content": content}], **kwargs}

    @staticmethod
    def _response(response: httpx.Response) -> ChatResponse:
        response.raise_for_status()
        content = response.json()["choices"][0]["message"]["content"]
        return ChatResponse(message=ChatMessage(role="assistant", content=content))

    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        with httpx.Client(timeout=None, verify=NO_TLS) as client:
            return self._response(
                client.post(f"{self.api_base}/chat/completions", json=self._body(messages, kwargs))
            )

    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        async with httpx.AsyncClient(timeout=None, verify=NO_TLS) as client:
            return self._response(
                await client.post(f"{self.api_base}/chat/completions", json=self._body(messages, kwargs))
            )

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        raise NotImplementedError


def _data_uri(block: ImageBlock) -> str:
    data = block.resolve_image(as_base64=True).read().decode("ascii")
    return f"data:{block.image_mimetype};base64,{data}"
