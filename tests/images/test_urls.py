"""urls.py: what is fetched, from where, and what is not."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_server import raw_server

from llama_index_multimodal_rerank import ImageLoadError, load_image
from llama_index_multimodal_rerank.images import url_connection, urls
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


# Spellings that only the resolver understands; addresses are in test_public_addresses.py.
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "2130706433",
        "0x7f000001",
        "127.1",
        "127。0。0。1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[::127.0.0.1]",
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
    with pytest.raises(UrlError, match=r"'localhost' \(port \d+\) is none of those allowed"):
        fetch_url(f"http://localhost:{port}/picture", allow_urls=["127.0.0.1"], max_bytes=10_000)
    with pytest.raises(UrlError, match=r"'localhost' \(port \d+\) is none of those allowed"):
        fetch_url(f"http://{server}/to/localhost", allow_urls=["127.0.0.1"], max_bytes=10_000)


def test_a_host_that_is_not_listed_is_not_even_looked_up(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name alone would tell somebody's name server what a document holds.
    asked: list[object] = []
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args[0]) or real(*args, **kwargs)
    )
    with pytest.raises(UrlError, match="none of those allowed"):
        fetch_url("http://secret.evil.example/", allow_urls=["127.0.0.1"], max_bytes=10)
    assert asked == []


def test_the_next_address_is_tried_where_nobody_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *args: object, **kwargs: object) -> list[object]:
        if host != "pictures.example":
            return real(host, *args, **kwargs)  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = server.partition(":")[2]
    url = f"http://pictures.example:{port}/picture"
    assert len(fetch_url(url, allow_urls=["pictures.example"], max_bytes=1000)) == 1000


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999", str(2**32 + 80), str(2**64), "9" * 5000, "x"])
def test_absurd_ports(port: str) -> None:
    for allowed in (True, LOCAL):
        with pytest.raises(UrlError, match=r"no port|could not be fetched"):
            fetch_url(f"http://127.0.0.1:{port}/", allow_urls=allowed, max_bytes=10)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///x",
        "https://[",
        "http://[::1",
        "http://\ud800/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 2000 + "example/",
        "http://xn--\u0378.example/",
        "http://127.0.0.1:9/" + "x" * 100_000,
        "http://a b.example/",
        "http://\x00.example/",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UrlError):
        fetch_url(url, allow_urls=True, max_bytes=10)
    with pytest.raises(UrlError):
        fetch_url(url, allow_urls=LOCAL, max_bytes=10)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.text(alphabet="a1.:[]@/\\\\?#%-_~ \t", max_size=30))
def test_any_text_ends_in_a_url_error(text: str, odd: str) -> None:
    for url in (text, f"http://{text}", f"https://{odd}", f"http://{odd}{text}"):
        with pytest.raises(UrlError):
            fetch_url(url, allow_urls=["allowed.example"], max_bytes=10)


def test_user_and_password_of_the_url_are_sent_to_its_host_only() -> None:
    heads: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        heads.append(request)
        if b"GET /first" in request:
            return [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/second\r\n\r\n" % port]
        return [b"HTTP/1.1 200 OK\r\n\r\nhello"]

    with raw_server(answer) as port:
        url = f"http://us%40er:p%3Aw@127.0.0.1:{port}/first"
        assert fetch_url(url, allow_urls=LOCAL, max_bytes=10) == b"hello"
    assert b"Authorization: Basic dXNAZXI6cDp3\r\n" in heads[0]  # us@er:p:w
    assert b"authorization" not in heads[1].lower()


def test_what_the_server_says_forges_no_log_line() -> None:
    with (
        raw_server(lambda request: [b"HTTP/9\rERROR root: all is lost\r\n\r\n"]) as port,
        pytest.raises(UrlError) as raised,
    ):
        fetch_url(f"http://127.0.0.1:{port}/", allow_urls=LOCAL, max_bytes=10)
    assert str(raised.value).isprintable()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        heads.append(request)
        return [b"HTTP/1.1 200 OK\r\n\r\nhello"]

    try:
        with raw_server(answer, socket.AF_INET6) as port:
            url = f"http://[0:0::1]:{port}/"
            for allowed in (["::1"], ["[::1]"], [f"[::1]:{port}"]):
                assert fetch_url(url, allow_urls=allowed, max_bytes=10) == b"hello"
    except OSError:
        pytest.skip("no IPv6 loopback address")
    assert f"Host: [0:0::1]:{port}\r\n".encode() in heads[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the name pictures.example that only itself vouches for, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pictures.example"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    name = ["-addext", "subjectAltName=DNS:pictures.example"]
    subprocess.run([openssl, *options.split(), *name, *files], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "certificate.pem").read_bytes())
    return both


def test_https_is_verified_for_the_name_and_not_for_the_address(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kwargs: real(
            "127.0.0.1" if host.rstrip(".").endswith(".example") else host, *args, **kwargs
        ),
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    asked: list[str | None] = []
    context.sni_callback = lambda connection, name, _: asked.append(name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # clients that do not trust it
    threading.Thread(target=server.serve_forever, daemon=True).start()
    allowed = ["pictures.example", "other.example", "127.0.0.1"]
    url_connection._tls_context.cache_clear()

    def fetch(host: str) -> bytes:
        url = f"https://{host}:{server.server_address[1]}/picture"
        return fetch_url(url, allow_urls=allowed, max_bytes=1000)

    try:
        with pytest.raises(UrlError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch("pictures.example")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        url_connection._tls_context.cache_clear()
        assert len(fetch("pictures.example")) == 1000
        assert len(fetch("pictures.example.")) == 1000
        for host in ("other.example", "127.0.0.1"):
            with pytest.raises(UrlError, match="CERTIFICATE_VERIFY_FAILED"):
                fetch(host)
    finally:
        url_connection._tls_context.cache_clear()
        server.shutdown()
        server.server_close()
    assert asked == ["pictures.example"] * 3 + ["other.example", None]


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
