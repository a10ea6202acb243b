"""PartialBody: what arrived of an answer's body, kept on disk so that the next request goes on from there."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from io import BufferedWriter

_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})")
_STRONG_SECONDS = 60


class RangeRefusedError(Exception):
    """The server does not send the rest of what is there; ask for the whole."""


class PartialBody:
    """The first bytes of a body, in a file whose first line says of which body they are.

    Bytes of two bodies are never put together: the rest is asked for with ``If-Range`` and a strong validator
    (RFC 9110, 13.1.5), from the address that sent the beginning; and the answer must continue it exactly.
    Without such a validator nothing is kept.

    Args:
        path: the file.

    Attributes:
        resumed: how many bytes of the last body were there before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BufferedWriter | None = None
        self.resumed = 0

    def request_headers(self, url: str) -> dict[str, str]:
        """Return what to ask a server with, for the rest of the body if there is a beginning."""
        head, body = self._read()
        if not body or head.get("url") != url:
            return {}
        return {"Range": f"bytes={len(body)}-", "If-Range": head["validator"]}

    def begin(self, url: str, response: HTTPResponse, *, asked_for_rest: bool) -> bytes:
        """Get ready for the pieces of an answer.

        Args:
            url: the address that answers.
            response: its head.
            asked_for_rest: whether ``request_headers`` had something to ask with.

        Returns:
            The bytes that come before them.

        Raises:
            RangeRefusedError: they do not continue what is there, which is forgotten now.
        """
        self.close()
        self.resumed = 0
        head, body = self._read()
        validator = _validator(response)
        if asked_for_rest and response.status in (206, 416):
            if response.status == 416 or not _continues(response, head, len(body)):
                self.discard()
                raise RangeRefusedError
            self._file = self._path.open("ab", buffering=0)  # type: ignore[assignment]
            self.resumed = len(body)
            return body
        self.discard()
        if validator is not None and response.status == 200 and not response.getheader("Content-Encoding"):
            self._file = self._path.open("wb", buffering=0)  # type: ignore[assignment]
            self._file.write(json.dumps({"url": url, "validator": validator}).encode() + b"\n")  # type: ignore[union-attr]
        return b""

    def write(self, piece: bytes) -> None:
        """Keep a piece; it is there when the process is killed after this."""
        if self._file is not None:
            self._file.write(piece)

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Forget what arrived."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, str], bytes]:
        with suppress(OSError, ValueError):
            line, _, body = self._path.read_bytes().partition(b"\n")
            head = json.loads(line)
            if isinstance(head, dict) and all(isinstance(head.get(key), str) for key in ("url", "validator")):
                return head, body
        return {}, b""


def _validator(response: HTTPResponse) -> str | None:
    """Return what tells this very body from any other at the address, or None."""
    etag = response.getheader("ETag", "")
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):
        return etag
    modified = response.getheader("Last-Modified", "")
    with suppress(ValueError, TypeError, OverflowError):  # no dates
        age = parsedate_to_datetime(response.getheader("Date", "")) - parsedate_to_datetime(modified)
        if age.total_seconds() >= _STRONG_SECONDS:
            return modified
    return None


def _continues(response: HTTPResponse, head: dict[str, str], there: int) -> bool:
    match = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", "").strip())
    if match is None or response.getheader("Content-Encoding"):
        return False
    first, last, total = map(int, match.groups())
    if (first, last) != (there, total - 1):
        return False
    validators = (response.getheader("ETag"), response.getheader("Last-Modified"))
    etag = head["validator"].startswith('"')
    sent = validators[0] if etag else validators[1]
    length = response.getheader("Content-Length")
    return sent in (None, head["validator"]) and length in (None, str(total - there))
