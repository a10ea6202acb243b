"""Fetch a picture from an http(s) address without becoming somebody's way into the network.

A URL in a document is text that others wrote. Fetched without care, it makes this machine ask
addresses that only this machine can reach: its own services, the neighbours', a cloud's metadata
service (server-side request forgery). And whoever answers decides how slowly, how much, and how
tightly packed.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .errors import UrlError
from .partial_body import PartialBody, RangeRefusedError
from .public_addresses import is_public
from .url_hosts import AllowUrls, check_allow_urls, is_listed

if TYPE_CHECKING:
    from http.client import HTTPResponse

    import httpx

    from .url_connection import Limits

TOTAL_TIMEOUT_SECONDS = 60.0
"""Time for everything: names looked up, connections, redirects, headers, the body and what follows it."""

OPERATION_TIMEOUT_SECONDS = 10.0
"""Time for each look-up, connection and handshake, and for each wait for further bytes."""

MAX_REDIRECTS = 5

OVERHEAD_BYTES = 1024 * 1024
"""Bytes that may be received beyond ``max_bytes``: headers of all answers, framing of chunks, trailers."""

_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE_BYTES = 64 * 1024


def fetch_url(
    url: str, *, allow_urls: AllowUrls, max_bytes: int, partial: PartialBody | None = None
) -> bytes:
    """Return the body of an http(s) address.

    Every hop of a redirect is checked like the first: scheme, host, port, and the addresses that
    its name resolves to, all of which must be public. The connection goes to an address that was
    checked, so a name cannot resolve to another one in between.

    The body is asked for as it is. One layer of gzip is undone, since some servers send what they
    hold packed in any case; other encodings are refused.

    Args:
        url: the address.
        allow_urls: see :data:`~.url_hosts.AllowUrls`.
        max_bytes: largest body accepted, as sent and unpacked. :data:`OVERHEAD_BYTES` more may be
            received in all.
        partial: keeps what arrives, and has what arrived before: the server is asked for the rest.

    Raises:
        UrlError: not allowed, not found, too large, too slow, broken, or too many redirects.
        ValueError: ``allow_urls`` is none of its values.
    """
    from .url_connection import LimitExceededError, Limits

    allowed = check_allow_urls(allow_urls)
    if allowed is False:
        raise UrlError(
            "URLs are not fetched unless allow_urls=True, or a list of hosts, is set; "
            "or download the file first"
        )
    limits = Limits(
        seconds=TOTAL_TIMEOUT_SECONDS,
        operation_seconds=OPERATION_TIMEOUT_SECONDS,
        max_received=max_bytes + OVERHEAD_BYTES,
    )
    try:
        try:
            return _follow(url, allowed, limits, max_bytes, partial)
        except RangeRefusedError:
            return _follow(url, allowed, limits, max_bytes, partial)
    except UrlError:
        raise
    except LimitExceededError as error:
        raise UrlError(str(error)) from error
    except TimeoutError as error:
        raise UrlError(str(limits.timed_out())) from error
    except Exception as error:
        # What others wrote as a URL or send as an answer makes the libraries below raise nearly
        # anything (HTTPException, SSLError, InvalidURL, UnicodeError, OverflowError …); all mean
        # the same to the caller. The answer's own words are quoted, so that they forge no log lines.
        raise UrlError(f"it could not be fetched ({repr(error)[:200]})") from error
    finally:
        if partial is not None:
            partial.close()


def _follow(
    url: str, allowed: bool | list[str], limits: Limits, max_bytes: int, partial: PartialBody | None
) -> bytes:
    import httpx

    from .url_connection import get

    target = httpx.URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        if target.scheme not in ("http", "https") or not target.host:
            raise UrlError(f"{str(target)[:100]!r} is no http(s) address")
        tls = target.scheme == "https"
        host = target.raw_host.decode("ascii")
        port = target.port if target.port is not None else 443 if tls else 80
        if not 0 < port < 65536:
            raise UrlError(f"there is no port {str(port)[:20]}; ports are 1 to 65535")
        if isinstance(allowed, list) and not is_listed(host, port, allowed):
            raise UrlError(
                f"the host {host!r} (port {port}) is none of those allowed by allow_urls={allowed}"
            )

        def check_address(address: str, host: str = host) -> None:
            if allowed is True and not is_public(address):
                raise UrlError(
                    f"the host {host!r} leads to {address}, which is not a public address; "
                    f"allow_urls=[{host!r}] allows it by name"
                )

        rest = {} if partial is None else partial.request_headers(str(target))
        with get(
            target.raw_path.decode("ascii"),
            host=host,
            port=port,
            tls=tls,
            headers={**_request_headers(target), **rest},
            limits=limits,
            check=check_address,
        ) as response:
            location = response.getheader("Location")
            if response.status not in _REDIRECTS or location is None:
                before = b""
                if partial is not None:
                    before = partial.begin(str(target), response, asked_for_rest=bool(rest))
                return _read_body(response, max_bytes, before, partial)
            target = target.join(location.encode("latin-1").decode("utf-8", "replace"))
    raise UrlError(f"it redirects more than {MAX_REDIRECTS} times")


def _request_headers(url: httpx.URL) -> dict[str, str]:
    headers = {
        "Host": url.netloc.decode("ascii"),
        "User-Agent": "llama-index-multimodal-rerank",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if url.userinfo:
        credentials = base64.b64encode(f"{url.username}:{url.password}".encode())
        headers["Authorization"] = f"Basic {credentials.decode('ascii')}"
    return headers


def _read_body(
    response: HTTPResponse, max_bytes: int, before: bytes = b"", partial: PartialBody | None = None
) -> bytes:
    if not 200 <= response.status < 300:
        raise UrlError(f"the server answered {response.status}")
    too_large = UrlError(f"the server sends more than the limit of {max_bytes} bytes")
    length = _announced_length(response)
    if length is not None and len(before) + length > max_bytes:
        raise too_large
    encodings = [encoding for encoding in _tokens(response, "Content-Encoding") if encoding != "identity"]
    if encodings and encodings not in (["gzip"], ["x-gzip"]):
        raise UrlError(f"it is packed as {', '.join(encodings)[:100]!r}; only one layer of gzip is undone")
    pieces = _received(response, length)
    body = bytearray(before)
    for piece in _unpacked(pieces) if encodings else pieces:
        body += piece
        if partial is not None:
            partial.write(piece)
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _tokens(response: HTTPResponse, header: str) -> list[str]:
    values = ",".join(response.headers.get_all(header, [])).lower().split(",")
    return [token for value in values if (token := value.strip())]


def _announced_length(response: HTTPResponse) -> int | None:
    transfer = _tokens(response, "Transfer-Encoding")
    if transfer not in ([], ["chunked"]):
        raise UrlError(f"it is sent as {', '.join(transfer)[:100]!r}, which is not understood")
    lengths = set(_tokens(response, "Content-Length"))
    if transfer or not lengths:
        return None
    text = lengths.pop()
    if lengths or not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise UrlError(f"its Content-Length {text[:40]!r} is no one length")
    return int(text)


def _received(response: HTTPResponse, length: int | None) -> Iterator[bytes]:
    received = 0
    while piece := response.read1(
        _PIECE_BYTES
    ):  # what is there: ``read`` would hold it back until it is full
        received += len(piece)
        yield piece
    if length is not None and received < length:
        raise UrlError(f"the connection ended after {received} of {length} bytes")


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Undo gzip in pieces of bounded size, so that a few bytes cannot become many at once."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        for piece in pieces:
            packed = piece
            while packed and not stream.eof:
                yield stream.decompress(packed, _PIECE_BYTES)
                packed = stream.unconsumed_tail
            if stream.unused_data or packed:
                raise UrlError("more follows after its gzip data")
        yield stream.flush()
    except zlib.error as error:
        raise UrlError(f"its gzip data are damaged ({error})") from error
    if not stream.eof:
        raise UrlError("its gzip data are cut short")
