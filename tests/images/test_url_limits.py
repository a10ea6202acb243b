"""urls.py against servers that trickle, flood, or pack: one deadline, bytes received, bytes produced.

Every server here ends by itself with a sound answer, so that without a limit a test fails instead
of hanging.
"""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator

import pytest
from support.raw_server import raw_server

from llama_index_multimodal_rerank.images import urls
from llama_index_multimodal_rerank.images.urls import UrlError, fetch_url

OK = b"HTTP/1.1 200 OK\r\n"
SOUND = OK + b"Content-Length: 5\r\n\r\nhello"


def fetch(port: int, scheme: str = "http", max_bytes: int = 10_000) -> bytes:
    return fetch_url(f"{scheme}://127.0.0.1:{port}/picture", allow_urls=["127.0.0.1"], max_bytes=max_bytes)


def trickle(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """One piece every 50 ms, for two seconds."""
    for piece in itertools.islice(pieces, 40):
        yield piece
        time.sleep(0.05)


def slow_body(request: bytes) -> Iterator[bytes]:
    yield OK + b"Content-Length: 40\r\n\r\n"
    yield from trickle(itertools.repeat(b"x"))


def slow_status_line(request: bytes) -> Iterator[bytes]:
    yield from trickle(OK[i : i + 1] for i in range(len(OK)))
    yield SOUND[len(OK) :]


def slow_headers(request: bytes) -> Iterator[bytes]:
    yield OK
    yield from trickle(b"X-%d: y\r\n" % i for i in itertools.count())
    yield SOUND[len(OK) :]


def slow_trailers(request: bytes) -> Iterator[bytes]:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    yield from trickle(b"X-%d: y\r\n" % i for i in itertools.count())
    yield b"\r\n"


def slow_continue(request: bytes) -> Iterator[bytes]:
    yield from trickle(itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"))
    yield SOUND


def slow_gzip_name(request: bytes) -> Iterator[bytes]:
    # Bytes that never become a byte of the body: a file name in the gzip header (flag 8).
    yield OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\xff"
    yield from trickle(itertools.repeat(b"n"))
    yield b"\0" + gzip.compress(b"hello", mtime=0)[10:]


def slow_empty_blocks(request: bytes) -> Iterator[bytes]:
    # Deflate's stored blocks of length 0.
    packed = gzip.compress(b"hello", mtime=0)
    yield OK + b"Content-Encoding: gzip\r\n\r\n" + packed[:10]
    yield from trickle(itertools.repeat(b"\0\0\0\xff\xff"))
    yield packed[10:]


def slow_redirects(request: bytes) -> Iterator[bytes]:
    hops = int(b"0" + request.partition(b"?")[2].partition(b" ")[0])
    time.sleep(0.15)
    yield b"HTTP/1.1 302 Found\r\nLocation: /picture?%d\r\n\r\n" % (hops + 1) if hops < 5 else SOUND


@pytest.mark.parametrize(
    "answer",
    [
        slow_body,
        slow_status_line,
        slow_headers,
        slow_trailers,
        slow_continue,
        slow_gzip_name,
        slow_empty_blocks,
        slow_redirects,
    ],
)
def test_one_deadline_holds_for_the_whole_exchange(
    answer: Callable[[bytes], Iterator[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "TOTAL_TIMEOUT_SECONDS", 0.4)
    with raw_server(answer) as port, pytest.raises(UrlError, match=r"takes longer than 0\.4 seconds"):
        fetch(port)


def test_the_deadline_holds_in_the_tls_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(hello: bytes) -> Iterator[bytes]:
        yield b"\x16\x03\x03\x40\x00"  # a handshake record of 16 KiB
        yield from trickle(itertools.repeat(b"x"))

    monkeypatch.setattr(urls, "TOTAL_TIMEOUT_SECONDS", 0.4)
    with raw_server(answer) as port, pytest.raises(UrlError, match=r"takes longer than 0\.4 seconds"):
        fetch(port, "https")


def test_the_deadline_holds_while_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*args: object, **kwargs: object) -> object:
        over.wait(3)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(urls, "TOTAL_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(UrlError, match=r"takes longer than 0\.2 seconds"):
        fetch_url("http://pictures.example/", allow_urls=True, max_bytes=10)
    over.set()


def test_a_silent_server_is_given_up_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        time.sleep(2)
        yield SOUND

    monkeypatch.setattr(urls, "OPERATION_TIMEOUT_SECONDS", 0.2)
    with raw_server(answer) as port, pytest.raises(UrlError, match=r"silent for 0\.2 seconds"):
        fetch(port)


FLOOD = 4 * 1024 * 1024


def flood(piece: bytes) -> bytes:
    return piece * (FLOOD // len(piece))


def continue_flood(request: bytes) -> Iterator[bytes]:
    yield flood(b"HTTP/1.1 100 Continue\r\n\r\n")
    yield SOUND


def gzip_name_flood(request: bytes) -> Iterator[bytes]:
    yield OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\xff"
    yield flood(b"n")
    yield b"\0" + gzip.compress(b"hello", mtime=0)[10:]


def empty_block_flood(request: bytes) -> Iterator[bytes]:
    packed = gzip.compress(b"hello", mtime=0)
    yield OK + b"Content-Encoding: gzip\r\n\r\n" + packed[:10]
    yield flood(b"\0\0\0\xff\xff")
    yield packed[10:]


def chunk_flood(request: bytes) -> Iterator[bytes]:
    # A thousand bytes of body, each in a chunk with 4 KiB of extension.
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
    yield (b"1;" + b"e" * 4096 + b"\r\nx\r\n") * 1000
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("answer", [continue_flood, gzip_name_flood, empty_block_flood, chunk_flood])
def test_bytes_that_never_become_a_body_are_limited(
    answer: Callable[[bytes], Iterator[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "OVERHEAD_BYTES", 100_000)
    with (
        raw_server(answer) as port,
        pytest.raises(UrlError, match="more than 110000 bytes in all"),
    ):
        fetch(port)


def test_a_body_as_long_as_the_limit_passes() -> None:
    body = bytes(range(256)) * 4096  # 1 MiB, in chunks as a server cuts them

    def answer(request: bytes) -> Iterator[bytes]:
        yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
        for start in range(0, len(body), 4096):
            yield b"1000\r\n" + body[start : start + 4096] + b"\r\n"
        yield b"0\r\nX-Trailer: fine\r\n\r\n"

    with raw_server(answer) as port:
        assert fetch(port, max_bytes=len(body)) == body
        with pytest.raises(UrlError, match=f"more than the limit of {len(body) - 1} bytes"):
            fetch(port, max_bytes=len(body) - 1)


def test_an_announced_length_above_the_limit_is_refused_at_once() -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        yield OK + b"Content-Length: 10001\r\n\r\n"
        time.sleep(1)  # nothing of the body is waited for
        yield b"x"

    with raw_server(answer) as port, pytest.raises(UrlError, match="more than the limit of 10000 bytes"):
        fetch(port)


def test_the_server_is_asked_for_bytes_as_they_are() -> None:
    seen: list[bytes] = []

    def answer(request: bytes) -> Iterator[bytes]:
        seen.append(request.lower())
        yield SOUND

    with raw_server(answer) as port:
        assert fetch(port) == b"hello"
    assert b"accept-encoding: identity\r\n" in seen[0]


def packed(encoding: str, body: bytes) -> Callable[[bytes], Iterator[bytes]]:
    def answer(request: bytes) -> Iterator[bytes]:
        yield OK + f"{encoding}Content-Length: {len(body)}\r\n\r\n".encode() + body

    return answer


@pytest.mark.parametrize(
    "encoding",
    [
        "",
        "Content-Encoding: identity\r\n",
        "Content-Encoding: gzip\r\n",
        "Content-Encoding: identity\r\ncontent-encoding: X-GZip\r\n",
    ],
)
def test_one_layer_of_gzip_is_undone(encoding: str) -> None:
    # Some stores hold files packed and send them so, whatever was asked for.
    body = b"hello" * 1000
    sent = gzip.compress(body) if "zip" in encoding.lower() else body
    with raw_server(packed(encoding, sent)) as port:
        assert fetch(port) == body


@pytest.mark.parametrize(
    "encoding",
    [
        "Content-Encoding: gzip, gzip\r\n",
        "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n",
        "Content-Encoding: br\r\n",
        "Content-Encoding: deflate\r\n",
        "Content-Encoding: zstd\r\n",
        "Content-Encoding: gzip, identity, deflate\r\n",
        "Content-Encoding: \xff\r\n",
    ],
)
def test_other_encodings_are_refused_unread(encoding: str) -> None:
    bomb = gzip.compress(gzip.compress(bytes(10_000_000)))
    with raw_server(packed(encoding, bomb)) as port, pytest.raises(UrlError, match="packed as"):
        fetch(port)


def test_a_gzip_bomb_is_not_inflated_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(200_000_000))  # 0.2 MB
    with raw_server(packed("Content-Encoding: gzip\r\n", bomb)) as port:
        tracemalloc.start()
        try:
            with pytest.raises(UrlError, match="more than the limit of 300000 bytes"):
                fetch(port, max_bytes=300_000)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b"hello", mtime=0)[:-1],
        gzip.compress(b"hello", mtime=0) + b"more",
        gzip.compress(b"hello", mtime=0) + gzip.compress(b"more", mtime=0),
        b"no gzip",
        zlib.compress(b"hello"),
        b"",
    ],
)
def test_broken_gzip_is_an_error_and_not_a_part_of_the_body(body: bytes) -> None:
    with (
        raw_server(packed("Content-Encoding: gzip\r\n", body)) as port,
        pytest.raises(UrlError, match="gzip"),
    ):
        fetch(port)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0" * 1000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: 6\r\n\r\nhello",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 21 + b"\r\n",
        OK + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        # Minutes for a regular expression that tries every way to share the blanks out.
        b"HTTP/1.1 404 Gone\r\nX: " + b" " * 60_000 + b"\0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + b"x" * 100,
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello",
        OK + b"Transfer-Encoding: identity, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        *(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/\r\n\r\n" % port
            for port in (-1, 0, 65536, 99999, 2**31, 2**32 + 80, 2**63, 2**64)
        ),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:" + b"9" * 5000 + b"/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://" + b"a" * 300 + b".example/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe://\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: gopher://127.0.0.1/\r\n\r\n",
    ],
)
def test_whatever_a_server_sends_ends_in_a_url_error(sent: bytes) -> None:
    with raw_server(lambda request: [sent]) as port, pytest.raises(UrlError):
        fetch(port)
