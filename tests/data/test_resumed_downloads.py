"""A picture of which half arrived: the rest is asked for, and halves of two pictures are never joined."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.drawing import draw_picture, encoded

from llama_index_multimodal_rerank.data.downloads import download_images

OLD = encoded(draw_picture(1, (200, 200)))
NEW = encoded(draw_picture(2, (200, 200)))
HALF = len(OLD) // 2
DAY = "Mon, 05 Jan 2026 10:00:00 GMT"


@dataclass
class Server:
    """Sends half of a picture at first, then what it is told.

    Attributes:
        ranges: whether it knows ranges.
        validators: headers that tell a version.
        now: the picture at the second request.
        now_validators: and what tells its version.
        status: of answers to ranges, instead of the right one.
        content_range: instead of the right one.
        hang: whether it keeps the first connection open behind the half.
        asked: headers of the requests.
    """

    ranges: bool = True
    validators: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    now: bytes = OLD
    now_validators: dict[str, str] | None = None
    status: int | None = None
    content_range: str | None = None
    hang: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body, where the body is whole."""
        self.asked.append(headers)
        first = len(self.asked) == 1
        body = OLD if first else self.now
        validators = self.validators if first or self.now_validators is None else self.now_validators
        start = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        if start is None or not self.ranges:
            return 200, validators, body
        if self.status is not None:
            return self.status, validators, b"no such range"
        if headers.get("If-Range") not in validators.values():
            return 200, validators, body
        begin = int(start[1])
        sent = self.content_range or f"bytes {begin}-{len(body) - 1}/{len(body)}"
        return 206, {**validators, "Content-Range": sent}, body[begin:]


@contextmanager
def running(server: Server) -> Iterator[Server]:
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = server.answer(dict(self.headers))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if len(server.asked) > 1:
                self.wfile.write(body)
                return
            self.wfile.write(body[:HALF])
            self.wfile.flush()
            if server.hang:
                over.wait(60)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/1.png"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        over.set()
        http.shutdown()
        http.server_close()


def download(server: Server, folder: Path) -> Any:
    return download_images([server.url], folder, allow_urls=["127.0.0.1"])


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for headers in server.asked]


REST = f"bytes={HALF}-"


@pytest.mark.parametrize(
    "validators", [{"ETag": '"1"'}, {"Last-Modified": DAY}, {"ETag": 'W/"1"', "Last-Modified": DAY}]
)
def test_the_rest_is_asked_for(tmp_path: Path, validators: dict[str, str]) -> None:
    with running(Server(validators=validators)) as server:
        assert f"after {HALF} of {len(OLD)} bytes" in download(server, tmp_path).skipped[0].reason
        assert download(server, tmp_path)[server.url].read_bytes() == OLD
        assert ranges(server) == [None, REST]
        assert server.asked[1]["If-Range"] == list(validators.values())[-1]
        assert not list((tmp_path / ".partial").iterdir())


WHOLE: dict[str, tuple[Server, list[str | None]]] = {
    "no ranges": (Server(ranges=False), [None, REST]),
    "changed": (Server(now=NEW, now_validators={"ETag": '"2"'}), [None, REST]),
    "changed and not ranges": (Server(ranges=False, now=NEW, now_validators={"ETag": '"2"'}), [None, REST]),
    "416": (Server(status=416), [None, REST, None]),
    "another range": (Server(content_range=f"bytes 0-{len(OLD) - 1}/{len(OLD)}"), [None, REST, None]),
    "a shorter range": (Server(content_range=f"bytes {HALF}-{HALF + 9}/{len(OLD)}"), [None, REST, None]),
    "no range named": (Server(content_range="bytes */*"), [None, REST, None]),
    "a weak ETag": (Server(validators={"ETag": 'W/"1"'}), [None, None]),
    "nothing tells versions apart": (Server(validators={}), [None, None]),
    "no date": (Server(validators={"Last-Modified": "yesterday"}), [None, None]),
}


@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_is_asked_for(tmp_path: Path, case: str) -> None:
    server, asked = WHOLE[case]
    with running(server):
        assert download(server, tmp_path).skipped
        assert download(server, tmp_path)[server.url].read_bytes() == server.now
        assert ranges(server) == asked
        assert not list((tmp_path / ".partial").iterdir())


def test_a_server_that_ignores_if_range_and_gives_another_version(tmp_path: Path) -> None:
    """It sends the rest of another picture under another ETag."""

    class Wrong(Server):
        def answer(self, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            if "Range" not in headers:
                return super().answer(headers)
            self.asked.append(headers)
            content_range = f"bytes {HALF}-{len(NEW) - 1}/{len(NEW)}"
            return 206, {"ETag": '"2"', "Content-Range": content_range}, NEW[HALF:]

    with running(Wrong(now=NEW)) as server:
        download(server, tmp_path)
        assert download(server, tmp_path)[server.url].read_bytes() == NEW
        assert ranges(server) == [None, REST, None]


def test_halves_that_make_no_picture_are_fetched_again(tmp_path: Path) -> None:
    """A server that lies about the version; the picture is decoded, and asked for from its beginning."""
    with running(Server(now=OLD[:HALF] + bytes(len(OLD) - HALF))) as server:
        download(server, tmp_path)
        server.now, broken = OLD, server.now
        answer = server.answer

        def lies(headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            server.now = broken if "Range" in headers else OLD
            return answer(headers)

        server.answer = lies  # type: ignore[method-assign]
        assert download(server, tmp_path)[server.url].read_bytes() == OLD
        assert ranges(server) == [None, REST, None]


@pytest.mark.parametrize("left", [b"", b"{", b"[]\nxx", b'{"url": 1, "validator": 2}\nxx'])
def test_a_damaged_beginning_is_forgotten(tmp_path: Path, left: bytes) -> None:
    with running(Server()) as server:
        download(server, tmp_path)
        (begun,) = (tmp_path / ".partial").iterdir()
        begun.write_bytes(left)
        assert download(server, tmp_path)[server.url].read_bytes() == OLD
        assert ranges(server) == [None, None]


def test_it_is_killed_in_the_middle_of_a_picture(tmp_path: Path) -> None:
    with running(Server(hang=True)) as server:
        program = (
            "import sys\n"
            "from llama_index_multimodal_rerank.data.downloads import download_images\n"
            "download_images([sys.argv[1]], sys.argv[2], allow_urls=['127.0.0.1'])\n"
        )
        child = subprocess.Popen([sys.executable, "-c", program, server.url, str(tmp_path)])
        deadline = time.monotonic() + 120

        def there() -> int:
            files = list((tmp_path / ".partial").glob("*"))
            return len(files[0].read_bytes().partition(b"\n")[2]) if files else 0

        while time.monotonic() < deadline and there() < HALF:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert there() == HALF
        assert json.loads(next((tmp_path / ".partial").iterdir()).read_bytes().split(b"\n")[0]) == {
            "url": server.url,
            "validator": '"1"',
        }
        assert download(server, tmp_path)[server.url].read_bytes() == OLD
        assert ranges(server) == [None, REST]
