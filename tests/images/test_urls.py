"""urls.py: what is fetched, from where, and what is not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llama_index_multimodal_rerank import ImageLoadError, load_image
from llama_index_multimodal_rerank.images import urls
from llama_index_multimodal_rerank.images.urls import UrlError, fetch_url

LOCAL = ["127.0.0.1", "localhost"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        port = self.server.server_address[1]
        redirects = {
            "/to/picture": "/picture",
            "/to/localhost": f"http://localhost:{port}/picture",
            "/to/file": "file:///etc/passwd",
            "/to/itself": "/to/itself",
        }
        if self.path in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[self.path])
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            if self.path == "/host":
                self.wfile.write(self.headers["Host"].encode())
            elif self.path == "/slow":
                with suppress(ConnectionError):  # the client gives up
                    for _ in range(50):
                        self.wfile.write(b"x")
                        time.sleep(0.1)
            else:
                self.wfile.write(b"x" * 1000)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()


def test_nothing_is_fetched_unless_allowed(server: str) -> None:
    with pytest.raises(UrlError, match="unless allow_urls=True"):
        fetch_url(f"http://{server}/picture", allow_urls=False, max_bytes=10_000)
    with pytest.raises(ImageLoadError, match="unless allow_urls=True"):
        load_image(f"http://{server}/picture")


def test_an_allowed_host_is_fetched(server: str) -> None:
    for path in ("/picture", "/to/picture", "/to/localhost"):
        assert len(fetch_url(f"http://{server}{path}", allow_urls=LOCAL, max_bytes=10_000)) == 1000
    with pytest.raises(ImageLoadError, match="not a picture"):
        load_image(f"http://{server}/picture", allow_urls=LOCAL)


def test_the_server_sees_the_name_not_the_address(server: str) -> None:
    port = server.partition(":")[2]
    body = fetch_url(f"http://localhost:{port}/host", allow_urls=LOCAL, max_bytes=100)
    assert body.decode() == f"localhost:{port}"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "2130706433",
        "0x7f000001",
        "[::1]",
        "[fe80::1]",
        "[fc00::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[2002:7f00:1::]",
    ],
)
def test_private_addresses_are_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(UrlError, match="not a public address"):
        fetch_url(f"http://{host}:9/", allow_urls=True, max_bytes=10)


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [("93.184.215.14", 80), ("10.0.0.1", 80)]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *args, **kwargs: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", a) for a in answers],
    )
    with pytest.raises(UrlError, match=r"leads to 10\.0\.0\.1"):
        fetch_url("http://pictures.example/", allow_urls=True, max_bytes=10)


def test_the_name_is_resolved_once_for_check_and_connection(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name that answers 127.0.0.1 first and another address later must not get there.
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, *args: object, **kwargs: object) -> object:
        asked.append(host)
        return real("127.0.0.1" if host == "rebind.example" else host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = server.partition(":")[2]
    fetch_url(f"http://rebind.example:{port}/picture", allow_urls=["rebind.example"], max_bytes=10_000)
    assert asked.count("rebind.example") == 1


def test_hosts_that_are_not_listed_are_refused_also_after_a_redirect(server: str) -> None:
    port = server.partition(":")[2]
    with pytest.raises(UrlError, match="'localhost' is none of those allowed"):
        fetch_url(f"http://localhost:{port}/picture", allow_urls=["127.0.0.1"], max_bytes=10_000)
    with pytest.raises(UrlError, match="'localhost' is none of those allowed"):
        fetch_url(f"http://{server}/to/localhost", allow_urls=["127.0.0.1"], max_bytes=10_000)


def test_limits(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UrlError, match="answered 404"):
        fetch_url(f"http://{server}/missing", allow_urls=LOCAL, max_bytes=10)
    with pytest.raises(UrlError, match="more than the limit of 999 bytes"):
        fetch_url(f"http://{server}/picture", allow_urls=LOCAL, max_bytes=999)
    with pytest.raises(UrlError, match="redirects more than 5 times"):
        fetch_url(f"http://{server}/to/itself", allow_urls=LOCAL, max_bytes=10)
    with pytest.raises(UrlError, match="no http"):
        fetch_url(f"http://{server}/to/file", allow_urls=LOCAL, max_bytes=10)
    monkeypatch.setattr(urls, "TOTAL_TIMEOUT_SECONDS", 0.3)
    with pytest.raises(UrlError, match="takes longer"):
        fetch_url(f"http://{server}/slow", allow_urls=LOCAL, max_bytes=1000)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UrlError, match="could not be fetched"):
        fetch_url(f"http://127.0.0.1:{port}/", allow_urls=LOCAL, max_bytes=10)
    with pytest.raises(UrlError, match="not known"):
        fetch_url("http://nowhere.invalid/", allow_urls=True, max_bytes=10)
