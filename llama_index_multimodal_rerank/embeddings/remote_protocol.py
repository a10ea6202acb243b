"""What goes over the wire between an embedding service and its client: JSON.

A request is ``{"items": [{"text": "…", "image": "<base64>"}, {"text": "…"}]}``; a picture is given by its
bytes alone, never by an address or a path.

An answer is ``{"embeddings": ["<base64>", …], "model": "…"}``, each vector the base64 of its little-endian
float32 numbers, or a list of numbers where the request has ``"encoding": "float"``; ``model`` is the digest
of the embedding's fingerprint.

An error is ``{"error": {"type": "…", "message": "…", "item": 3, "reason": "…"}}``, the last two only where it
is one item's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    import numpy.typing as npt

EMBED_PATH = "/v1/embed"
INFO_PATH = "/v1/info"
HEALTH_PATH = "/health"

Encoding = Literal["base64", "float"]


class WireItem(NamedTuple):
    """A text, a picture's bytes, or both."""

    text: str
    image: bytes | None


class RequestError(ValueError):
    """A request that is not of this protocol; the message says in what."""


class _ItemBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = ""
    image: str | None = None


class _RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    items: list[_ItemBody] = Field(min_length=1)
    encoding: Encoding = "base64"


class ServiceInfo(BaseModel):
    """What a service says about itself.

    Attributes:
        dim: length of its vectors.
        fingerprint: that of the embedding which it serves.
        model: digest of the fingerprint, which stands in every answer.
        max_items: items that a request may have.
        max_body_bytes: length that a request may have.
    """

    dim: int = Field(gt=0)
    fingerprint: dict[str, str]
    model: str
    max_items: int = Field(gt=0)
    max_body_bytes: int = Field(gt=0)


def fingerprint_digest(fingerprint: Mapping[str, str]) -> str:
    """Return a short name of an embedding, the same wherever it runs."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:32]


def encode_image(data: bytes) -> str:
    """Return a picture's bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def request_body(items: Sequence[Mapping[str, str]]) -> bytes:
    """Return a request for items ``{"text", "image"}``, whose pictures are base64 already."""
    return json.dumps({"items": [*items]}, separators=(",", ":")).encode("ascii")


def parse_request(body: bytes, max_items: int) -> tuple[list[WireItem], Encoding]:
    """Read a request.

    Raises:
        RequestError: it is no JSON of this form, has more items, or a picture is no base64.
    """
    try:
        request = _RequestBody.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise RequestError(f"{_place(first['loc'])}: {first['msg']}") from error
    if len(request.items) > max_items:
        raise RequestError(f"items: a request has at most {max_items}, got {len(request.items)}")
    items = [WireItem(item.text, _decoded(index, item.image)) for index, item in enumerate(request.items)]
    return items, request.encoding


def _place(location: Sequence[int | str]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.lstrip(".") or "the body"


def _decoded(index: int, image: str | None) -> bytes | None:
    if image is None:
        return None
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            f"items[{index}].image must be the base64 of a picture's bytes (paths, URLs and data URIs are "
            f"not taken): {error}"
        ) from error


def answer_body(vectors: npt.NDArray[np.float32], model: str, encoding: Encoding) -> bytes:
    """Return the answer to a request."""
    embeddings: list[Any] = (
        vectors.tolist()
        if encoding == "float"
        else [base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") for vector in vectors]
    )
    return json.dumps({"embeddings": embeddings, "model": model}, separators=(",", ":")).encode("ascii")


class Answer(NamedTuple):
    """What a service answered: vectors, (items, dim), and the digest of its embedding."""

    vectors: npt.NDArray[np.float32]
    model: str


def parse_answer(body: bytes, count: int, dim: int) -> Answer:
    """Read the answer to a request for ``count`` items in base64.

    Raises:
        ValueError: it is no such answer.
    """
    answer = json.loads(body)
    embeddings, model = answer["embeddings"], answer["model"]
    if len(embeddings) != count:
        raise ValueError(f"{len(embeddings)} vectors for {count} items")
    vectors = np.empty((count, dim), dtype=np.float32)
    for row, text in enumerate(embeddings):
        vector = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
        if len(vector) != dim:
            raise ValueError(f"a vector of {len(vector)} numbers where {dim} were expected")
        vectors[row] = vector
    return Answer(vectors, model)


class WireError(NamedTuple):
    """An error of the service: which kind, the whole message, and where it is one item's, which and why."""

    type: str
    message: str
    item: int | None = None
    reason: str | None = None

    def body(self) -> bytes:
        """Return it as the body of an answer."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return json.dumps({"error": given}).encode("ascii")


def parse_error(body: bytes) -> WireError | None:
    """Read the body of an answer that is an error; None where it is not one of this protocol."""
    try:
        error = json.loads(body)["error"]
        item, reason = error.get("item"), error.get("reason")
        return WireError(
            str(error["type"]),
            str(error["message"]),
            item if isinstance(item, int) else None,
            None if reason is None else str(reason),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
