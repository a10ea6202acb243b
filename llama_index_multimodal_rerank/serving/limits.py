"""Limits of the service, and who is let in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

MIB = 2**20


class QueueFullError(Exception):
    """There is as much to do as the service takes on; the message says what."""


class BodyTooLargeError(Exception):
    """A request is longer than the service reads; the message says by how much."""


@dataclass(frozen=True)
class Limits:
    """What the service takes on. Memory for requests is at most about three times ``max_queue_bytes``.

    Attributes:
        max_items: items of a request.
        max_body_bytes: length of a request; a picture in it is base64, a third more than its bytes.
        max_requests: requests that are read, wait or are embedded at a time; one more gets 503.
        max_queue_bytes: length of all these requests together.
        max_batch: items that the model is given at a time.
        body_seconds: time that a request may take to arrive.
    """

    max_items: int = 64
    max_body_bytes: int = 32 * MIB
    max_requests: int = 256
    max_queue_bytes: int = 512 * MIB
    max_batch: int = 256
    body_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be positive, got {getattr(self, field.name)}")
        if self.max_body_bytes > self.max_queue_bytes:
            raise ValueError(
                f"max_body_bytes ({self.max_body_bytes}) must not be more than max_queue_bytes "
                f"({self.max_queue_bytes}): such a request would never be let in"
            )


class Admission:
    """Counts the requests that are being served, and refuses those that are too many.

    Args:
        limits: how many there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def admit(self, content_length: int | None) -> Iterator[None]:
        """Count a request while it is being served.

        Args:
            content_length: its length as it says, None where it does not.

        Raises:
            BodyTooLargeError: it is too long.
            QueueFullError: others are to be served first.
        """
        limits = self._limits
        length = limits.max_body_bytes if content_length is None else content_length
        if length > limits.max_body_bytes:
            raise BodyTooLargeError(
                f"the request has {length} bytes, more than the limit of {limits.max_body_bytes}"
            )
        if self.requests >= limits.max_requests or self.bytes + length > limits.max_queue_bytes:
            raise QueueFullError(
                f"the queue is full: {self.requests} requests of {self.bytes} bytes are being served "
                f"(limits: {limits.max_requests} requests, {limits.max_queue_bytes} bytes)"
            )
        self.requests += 1
        self.bytes += length
        try:
            yield
        finally:
            self.requests -= 1
            self.bytes -= length
