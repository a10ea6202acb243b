"""url_hosts.py: the hosts that allow_urls lists, and what is no list."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llama_index_multimodal_rerank import Phi3VisionRerank, VisualizedBGEEmbedding, load_image
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.images.url_hosts import check_allow_urls, is_listed

FACES = [VisualizedBGEEmbedding, Phi3VisionRerank]


@pytest.mark.parametrize(
    ("host", "port", "entry"),
    [
        ("images.example.org", 80, "images.example.org"),
        ("images.example.org", 8080, "images.example.org"),
        ("IMAGES.Example.org", 80, "images.example.ORG"),
        ("images.example.org.", 80, "images.example.org"),
        ("images.example.org", 80, "images.example.org."),
        ("xn--bcher-kva.example", 80, "bücher.example"),
        ("xn--bcher-kva.example", 80, "BÜCHER.example"),
        ("xn--bcher-kva.example", 80, "XN--bcher-kva.example"),
        ("a_b.internal", 80, "a_b.internal"),
        ("localhost", 8000, "localhost:8000"),
        ("localhost", 80, "localhost:80"),
        ("localhost", 443, "localhost:443"),
        ("10.0.0.7", 80, "10.0.0.7"),
        ("::1", 80, "::1"),
        ("::1", 80, "[::1]"),
        ("0:0:0:0::1", 80, "::1"),
        ("::1", 80, "0:0::0:1"),
        ("::1", 8000, "[::1]:8000"),
    ],
)
def test_listed(host: str, port: int, entry: str) -> None:
    assert is_listed(host, port, check_allow_urls(["other.example", entry]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "port", "entry"),
    [
        ("example.org", 80, "images.example.org"),
        ("images.example.org", 80, "example.org"),
        ("images.example.org.evil.example", 80, "images.example.org"),
        ("mages.example.or", 80, "images.example.org"),
        ("images.example.org..", 80, "images.example.org"),
        ("localhost", 8001, "localhost:8000"),
        ("localhost", 8000, "localhost:80"),
        ("2130706433", 80, "127.0.0.1"),
        ("::ffff:7f00:1", 80, "127.0.0.1"),
        ("::1", 8001, "[::1]:8000"),
        ("", 80, "localhost"),
    ],
)
def test_not_listed(host: str, port: int, entry: str) -> None:
    assert not is_listed(host, port, [entry])
    assert not is_listed(host, port, [])


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "*",
        "*.example.org",
        "http://images.example.org",
        "images.example.org/",
        "images.example.org/cats",
        "images.example.org?x",
        "images.example.org#x",
        "user@images.example.org",
        "a b.example",
        "images.example.org:0",
        "images.example.org:99999",
        "images.example.org:x",
        "[::1",
        "\ud800",
        7,
        None,
        b"images.example.org",
    ],
)
def test_an_entry_that_is_no_host_is_refused(entry: Any) -> None:
    with pytest.raises(ValueError, match="allow_urls"):
        check_allow_urls(["images.example.org", entry])
    for face in FACES:
        with pytest.raises(ValidationError, match="allow_urls"):
            face(allow_urls=[entry])


@pytest.mark.parametrize("text", ["images.example.org", "true", "1", "yes", ""])
def test_a_string_is_no_list(text: str) -> None:
    # As a list, it would allow each of its substrings; as a bool, every host.
    message = r"write allow_urls=\['" + text
    with pytest.raises(ValueError, match=message):
        check_allow_urls(text)
    with pytest.raises(ValueError, match=message):
        load_image("http://mages.example.or/x.png", allow_urls=text)
    with pytest.raises(ValueError, match=message):
        ImageAccess(allow_urls=text)
    for face in FACES:
        with pytest.raises(ValidationError, match=message):
            face(allow_urls=text)


@pytest.mark.parametrize("value", [1, 0, None, 1.0, b"host", {"host": True}, object()])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="True, False or a list of hosts"):
        check_allow_urls(value)
    for face in FACES:
        with pytest.raises(ValidationError, match="True, False or a list of hosts"):
            face(allow_urls=value)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (True, True),
        (False, False),
        ([], []),
        (["a.example", "[::1]:8000"], ["a.example", "[::1]:8000"]),
        (("a.example",), ["a.example"]),
        ({"a.example"}, ["a.example"]),
    ],
)
def test_values_that_are_kept(value: Any, kept: bool | list[str]) -> None:
    assert check_allow_urls(value) == kept
    for face in FACES:
        assert face(allow_urls=value).allow_urls == kept
