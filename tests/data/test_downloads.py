"""downloads.py: each picture once, from named hosts, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.amazon_shop import Shop, serve

from llama_index_multimodal_rerank.data.downloads import JOURNAL, download_images

LOCAL = ["127.0.0.1"]


@pytest.fixture
def files(pictures: list[Path]) -> dict[str, bytes]:
    return {f"/{path.name}": path.read_bytes() for path in pictures}


def test_files_are_named_by_digest(tmp_path: Path, files: dict[str, bytes]) -> None:
    files["/copy.jpg"] = files["/picture-0.png"]
    with serve(Shop(files)) as shop:
        urls = [shop.url(path) for path in files]
        found = download_images([*urls, urls[0]], tmp_path / "images", allow_urls=LOCAL)
        assert list(found) == urls
        assert (found.fetched, found.skipped) == (7, [])
        for path, url in zip(files, urls, strict=True):
            digest = hashlib.sha256(files[path]).hexdigest()
            assert found[url] == tmp_path / "images" / digest[:2] / f"{digest}.png"
            assert found[url].read_bytes() == files[path]
        assert set(shop.asked.values()) == {1}

        again = download_images(urls, tmp_path / "images", allow_urls=LOCAL)
        assert again == found
        assert again.fetched == 0
        assert set(shop.asked.values()) == {1}

        found[urls[1]].unlink()
        found[urls[2]].write_bytes(b"cut")
        mended = download_images(urls, tmp_path / "images", allow_urls=LOCAL)
        assert mended == found
        assert mended.fetched == 2
        assert found[urls[2]].read_bytes() == files["/picture-2.png"]


def test_what_is_no_picture_is_named_and_asked_for_again(tmp_path: Path, files: dict[str, bytes]) -> None:
    files["/text.jpg"] = b"Sorry, this is a text."
    with serve(Shop(files)) as shop:
        urls = [
            shop.url("/picture-0.png"),
            shop.url("/gone.jpg"),
            shop.url("/text.jpg"),
            "file:///etc/passwd",
        ]
        for _ in range(2):
            found = download_images(urls, tmp_path / "images", allow_urls=LOCAL)
            assert list(found) == urls[:1]
            reasons = dict(found.skipped)
            assert reasons[urls[1]] == "the server answered 404"
            assert "not a picture" in reasons[urls[2]] or "format" in reasons[urls[2]]
            assert reasons[urls[3]] == "it is no http(s) address"
        assert shop.asked == {"/picture-0.png": 1, "/gone.jpg": 2, "/text.jpg": 2}
    assert (
        len([path for path in (tmp_path / "images").rglob("*") if path.is_file() and path.name != JOURNAL])
        == 1
    )


def test_only_named_hosts_are_contacted(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serve(Shop(files)) as other, serve(Shop(files)) as shop:
        named = [f"127.0.0.1:{shop.port}"]
        urls = [shop.url("/picture-0.png"), other.url("/picture-1.png")]
        found = download_images(urls, tmp_path, allow_urls=named)
        assert list(found) == urls[:1]
        assert other.asked == {}
        assert "none of those allowed" in found.skipped[0].reason


@pytest.mark.parametrize("value", [True, False, "127.0.0.1"])
def test_hosts_must_be_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="allow_urls must"):
        download_images([], tmp_path, allow_urls=value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="connections must be at least 1, got 0"):
        download_images([], tmp_path, allow_urls=LOCAL, connections=0)


def test_connections_are_bounded(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serve(Shop(files, seconds=0.05)) as shop:
        download_images(map(shop.url, files), tmp_path, allow_urls=LOCAL, connections=2)
        assert shop.most_at_once <= 2


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serve(Shop(files, seconds=0.2)) as shop:
        urls = [shop.url(path) for path in files]
        program = (
            "import json, sys\n"
            "from llama_index_multimodal_rerank.data.downloads import download_images\n"
            "download_images(json.loads(sys.argv[1]), sys.argv[2], allow_urls=['127.0.0.1'], connections=1)\n"
        )
        child = subprocess.Popen([sys.executable, "-c", program, json.dumps(urls), str(tmp_path)])
        journal = tmp_path / JOURNAL
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"\n") < 2):
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        there = journal.read_bytes().count(b"\n")
        assert 2 <= there < 6
        with journal.open("ab") as file:  # the worst moment: in the middle of a line, and of a picture
            file.write(b'{"url": "http')
        (tmp_path / ".partial" / "left").write_bytes(b"half a picture")

        found = download_images(urls, tmp_path, allow_urls=LOCAL)
        assert list(found) == urls
        assert found.fetched == 6 - there
        assert not list((tmp_path / ".partial").iterdir())
        assert download_images(urls, tmp_path, allow_urls=LOCAL).fetched == 0
    # one picture, which was being received when it was killed, may have been asked for twice
    assert sum(shop.asked.values()) <= 7
