"""The page as programs see it: many searches at once, what it serves, whom it talks to, where it listens."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from support import page_process

from llama_index_multimodal_rerank.app.collections import Collection
from llama_index_multimodal_rerank.app.page import page_running
from llama_index_multimodal_rerank.app.page.filter_panel import MAX_CHOICES, MAX_RANGES
from llama_index_multimodal_rerank.app.search import SearchRequest, search
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.images.access import MAX_IMAGE_BYTES

pytest.importorskip("gradio", reason="needs Gradio: pip install '.[app]'")
pytestmark = pytest.mark.app

FILTERS: list[Any] = [[]] * MAX_CHOICES + [None] * (2 * MAX_RANGES)
SEARCHES = 20


@pytest.fixture(scope="module")
def address(products: Collection) -> Iterator[str]:
    with page_running(products) as address:
        yield address


def ask(
    address: str, picture: Path | None, words: str, number: int = 9, strategy: str = "first_token"
) -> tuple[str, ...]:
    """Search as a session of its own; return the HTML of message and of the rest."""
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    found = client.predict(
        None if picture is None else handle_file(picture),
        words,
        number,
        strategy,
        "the shop",
        *FILTERS,
        api_name="/search",
    )
    return tuple(found)


def files(shown: str, name: str) -> list[str]:
    part = re.search(rf'<section class="ir-list" data-list="{name}">.*?</section>', shown, re.DOTALL)
    return re.findall(r'data-file="([^"]+)"', part[0]) if part else []


def test_twenty_searches_at_once(address: str, products: Collection, tmp_path: Path) -> None:
    kinds = ["a mug with this", "a shoe with this", "a dress with this", "an umbrella with this", ""]
    surfaces = ["leopard", "waves", "brick", "dots"]
    questions = []
    for number in range(SEARCHES):
        path = tmp_path / f"{number}" / "picture.png"  # all of one name
        path.parent.mkdir()
        draw_query_picture(surfaces[number % 4], number).save(path)
        questions.append((path, kinds[number % 5], 4 + number % 6))
    with ThreadPoolExecutor(SEARCHES) as pool:
        answers = list(pool.map(lambda question: ask(address, *question), questions))
    for (path, words, count), (message, lists, said, compared, saw) in zip(questions, answers, strict=True):
        request = SearchRequest(words, path.read_bytes(), top_k=count, strategy="first_token")
        expected = search(products, request)
        assert expected.reranked is not None
        assert message == ""
        assert files(lists, "retrieved") == [hit.file for hit in expected.retrieved]
        assert files(lists, "reranked") == [hit.file for hit in expected.reranked]
        assert (expected.caption or "") in said
        assert saw.count("data:image/png") == 2  # the sheet of all, and that of the reason
        if words:
            alone = search(products, SearchRequest(words, top_k=count))
            assert files(compared, "text") == [hit.file for hit in alone.retrieved]


@pytest.mark.parametrize(
    ("words", "number", "strategy", "said"),
    [
        ("", 9, "none", "there is nothing to look for: give a picture, words, or both"),
        ("  ", 9, "none", "there is nothing to look for"),
    ],
)
def test_mistakes_are_messages(address: str, words: str, number: int, strategy: str, said: str) -> None:
    message, lists, *_ = ask(address, None, words, number, strategy)
    assert said in message
    assert "Traceback" not in message
    assert "ir-card" not in lists


def test_a_text_named_like_a_picture(address: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("These are notes.")
    message, lists, *_ = ask(address, path, "a mug")
    assert "“notes.png” cannot be used as a picture: it is not a picture in a known format" in message
    assert str(tmp_path) not in message
    assert "ir-card" not in lists


def test_the_limits_of_pictures_hold(address: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (12_000, 12_000)).save(path)
    message, *_ = ask(address, path, "a mug")
    assert "12000 x 12000 = 144000000 pixels, more than the limit of 89478485" in message
    with httpx.Client(base_url=address) as client:
        body = b"\0" * (MAX_IMAGE_BYTES + 1)
        answer = client.post("gradio_api/upload", files={"files": ("large.png", body)})
    assert answer.status_code == 413


def test_only_uploads_are_served(address: str, products: Collection, leopard: Path) -> None:
    shown = next(node.metadata["file_path"] for node in products.store.all_nodes())
    with httpx.Client(base_url=address) as client:
        for path in ("/etc/passwd", shown, __file__, str(leopard)):
            assert client.get(f"gradio_api/file={path}").status_code == 403, path
        uploaded = client.post("gradio_api/upload", files={"files": ("a.png", leopard.read_bytes())}).json()[
            0
        ]
        assert client.get(f"gradio_api/file={uploaded}").content == leopard.read_bytes()
        above = client.get(f"gradio_api/file={uploaded}/../../../../../etc/passwd")
        assert above.status_code in (400, 403, 404)


def test_other_names_are_refused(address: str) -> None:
    """A page of others, whose name was made to lead to this machine, gets nothing."""
    with httpx.Client(base_url=address) as client:
        assert client.get("config").status_code == 200
        assert client.get("config", headers={"Host": "rebound.example:7860"}).status_code == 400
        asked = {"json": {"data": [None, "a mug", 3, "none", "the shop", *FILTERS]}}
        foreign = client.post("gradio_api/call/search", headers={"Origin": "http://evil.example"}, **asked)
        assert "access-control-allow-origin" not in foreign.headers


def test_a_picture_that_was_not_uploaded_is_no_query(address: str, products: Collection) -> None:
    """A client may send any path; only what lies in the folder of uploads is read."""
    shown = next(node.metadata["file_path"] for node in products.store.all_nodes())
    for path in (shown, "/etc/hostname"):
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, "", 3, "none", "the shop", *FILTERS]
        with httpx.Client(base_url=address, timeout=60) as client:
            event = client.post("gradio_api/call/search", json={"data": data}).json()["event_id"]
            answer = client.get(f"gradio_api/call/search/{event}").text
        assert "event: error" in answer, answer
        assert "ir-card" not in answer


def test_uploads_are_removed(products: Collection, leopard: Path) -> None:
    with page_running(products) as address, httpx.Client(base_url=address) as client:
        answer = client.post("gradio_api/upload", files={"files": ("a.png", leopard.read_bytes())})
        uploaded = Path(answer.json()[0])
        assert uploaded.is_file()
        assert uploaded.parent.parent.stat().st_mode & 0o77 == 0
    assert not uploaded.parent.parent.exists()


def test_uploads_are_removed_when_the_terminal_is_closed(tmp_path: Path, leopard: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    draw_query_picture("dots", 1).save(photos / "dots.png")
    with page_process.started(tmp_path, "--images", str(photos), "--model", "demo") as (address, process):
        answer = httpx.post(
            f"{address}gradio_api/upload", files={"files": ("a.png", leopard.read_bytes())}, timeout=60
        )
        assert Path(answer.json()[0]).is_file()
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert list((tmp_path / "tmp").glob("image-search-*")) == []


def test_uploads_are_removed_after_a_while(products: Collection, leopard: Path) -> None:
    from llama_index_multimodal_rerank.app.page.open_collections import OpenCollections
    from llama_index_multimodal_rerank.app.page.page import build_page
    from llama_index_multimodal_rerank.app.page.server import start, upload_folder

    with upload_folder() as uploads:
        page = build_page(OpenCollections(products), uploads, kept_seconds=1)
        with httpx.Client(base_url=start(page)) as client:
            answer = client.post("gradio_api/upload", files={"files": ("a.png", leopard.read_bytes())})
            uploaded = Path(answer.json()[0])
            assert uploaded.is_relative_to(uploads)
            end = time.monotonic() + 60
            while uploaded.exists() and time.monotonic() < end:
                time.sleep(0.1)
        page.close(verbose=False)
        assert not uploaded.exists()


def test_a_process_of_its_own(tmp_path: Path, leopard: Path) -> None:
    """It listens on 127.0.0.1 alone, talks to nobody else, and leaves nothing behind."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, surface in enumerate(("leopard", "dots", "waves")):
        draw_query_picture(surface, seed + 10).save(photos / f"{surface}.png")
    models = ["--model", "demo", "--reranker", "demo", "--device", "cpu", "--dtype", "float32"]
    with page_process.started(tmp_path, "--images", str(photos), *models) as (address, process):
        assert address.startswith("http://127.0.0.1:")
        from gradio_client import Client, handle_file

        client = Client(address, verbose=False)
        _, lists, *_ = client.predict(
            handle_file(leopard), "", 3, "listwise", str(photos), *FILTERS, api_name="/search"
        )
        assert files(lists, "retrieved")[0] == "leopard.png"
        assert sorted(files(lists, "reranked")) == ["dots.png", "leopard.png", "waves.png"]
        addresses = page_process.listening(process.pid)
        assert len(addresses) > 0
        assert {host for host, _ in addresses} == {"127.0.0.1"}
        assert int(address.rstrip("/").rpartition(":")[2]) in {port for _, port in addresses}
    watched = {line.partition(" ")[2] for line in (tmp_path / "watched").read_text().splitlines()}
    assert "127.0.0.1" in watched  # it was watched
    assert {host for host in watched if not page_process.is_here(host)} == set()
    assert list((tmp_path / "tmp").glob("image-search-*")) == []
