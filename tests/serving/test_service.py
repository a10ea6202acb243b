"""The service in a process of its own, with 32 clients, bad pictures, and restarts."""

from __future__ import annotations

import base64
import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from llama_index_multimodal_rerank import ImageLoadError, RemoteImageTextEmbedding, VisualizedBGEEmbedding
from llama_index_multimodal_rerank.serving.__main__ import main, parser

from .conftest import ServiceProcess, mixed_items

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

CLIENTS = 32
NO_PICTURE = b"this is no picture at all"


def client(endpoint: str, **settings: Any) -> RemoteImageTextEmbedding:
    return RemoteImageTextEmbedding(endpoint=endpoint, retry_seconds=300, **settings)


def as_base64(picture: Image.Image | bytes) -> str:
    if isinstance(picture, bytes):
        return base64.b64encode(picture).decode()
    file = BytesIO()
    picture.save(file, "PNG")
    return as_base64(file.getvalue())


def post(service: ServiceProcess, **options: Any) -> httpx.Response:
    return httpx.post(f"{service.endpoint}/v1/embed", timeout=120, **options)


@pytest.fixture(scope="module")
def ready(service: ServiceProcess) -> ServiceProcess:
    assert client(service.endpoint).dim == 128
    return service


def test_32_clients_get_the_vectors_of_the_library(
    ready: ServiceProcess, served: VisualizedBGEEmbedding
) -> None:
    """More items than a request of the service may have, so each client has several under way."""
    items = [mixed_items(10, of=number) for number in range(CLIENTS)]
    begin = threading.Barrier(CLIENTS)

    def embed(number: int) -> np.ndarray:
        own = client(ready.endpoint, items_per_request=3 + number % 3, parallel_requests=2)
        begin.wait()
        return own.encode(items[number])

    with ThreadPoolExecutor(CLIENTS) as pool:
        vectors = [*pool.map(embed, range(CLIENTS))]
    for own, expected in zip(vectors, map(served.encode, items), strict=True):
        assert own.dtype == np.float32
        np.testing.assert_allclose(own, expected, atol=1e-6, rtol=0)


def test_a_run_is_complete_although_the_service_is_killed_and_ended_in_the_middle(
    ready: ServiceProcess, served: VisualizedBGEEmbedding, caplog: pytest.LogCaptureFixture
) -> None:
    """Once by SIGKILL, once by SIGTERM; in both cases clients have requests under way, and more to send."""
    items = [mixed_items(24, of=number) for number in range(8)]
    expected = [served.encode(own) for own in items]
    answered = threading.Semaphore(0)

    def embed(number: int) -> list[list[float]]:
        own = client(ready.endpoint)
        vectors = []
        for item in items[number]:
            vectors.append(own.get_query_embedding(item))
            answered.release()
        return vectors

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(len(items)) as pool:
        futures = [pool.submit(embed, number) for number in range(len(items))]
        for how in (signal.SIGKILL, signal.SIGTERM):
            for _ in range(24):
                assert answered.acquire(timeout=300)
            ready.end(how)
            ready.start()
        vectors = [future.result(timeout=300) for future in futures]
    np.testing.assert_allclose(np.array(vectors), np.array(expected), atol=1e-6, rtol=0)
    assert "attempt 1 failed" in caplog.text


def test_a_bad_picture_is_a_422_that_says_which_and_why(ready: ServiceProcess) -> None:
    response = post(ready, json={"items": [{"text": "a mug"}, {"text": "a", "image": as_base64(NO_PICTURE)}]})
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["type"], error["item"]) == ("ImageLoadError", 1)
    assert error["message"].startswith("items[1]: cannot read the picture <25 bytes>: it is not a picture")
    assert error["message"].endswith(error["reason"])


def test_the_client_raises_what_the_library_raises(
    ready: ServiceProcess, served: VisualizedBGEEmbedding, tmp_path: Path
) -> None:
    path = tmp_path / "cut\n.jpg"
    Image.new("RGB", (64, 64), "red").save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])
    messages = []
    for embed_model in (served, client(ready.endpoint)):
        with pytest.raises(ImageLoadError) as caught:
            embed_model.get_image_embedding(path)
        messages.append((str(caught.value), caught.value.source, caught.value.reason))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("http://127.0.0.1/x.png", "items[0].image must be the base64"),
        ("/etc/passwd", "items[0].image must be the base64"),
        ("/var/log", "items[0]: cannot read the picture <6 bytes>: it is not a picture"),  # is base64, too
        ("file:///etc/hostname", "items[0].image must be the base64"),
        ("data:image/png;base64,AAAA", "items[0].image must be the base64"),
        ("", "items[0]: cannot read the picture <0 bytes>: it is empty"),
    ],
)
def test_addresses_and_paths_are_not_taken(ready: ServiceProcess, image: str, said: str) -> None:
    response = post(ready, json={"items": [{"text": "a mug", "image": image}]})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"].startswith(said)


@pytest.mark.parametrize(
    ("items", "status", "said"),
    [
        ([{"text": " "}], 422, "items[0]: an empty text has no embedding"),
        ([{}], 422, "items[0]: an empty text has no embedding"),
        ([{"text": "half a letter: \ud800"}], None, ""),
        ([{"text": "a", "path": "/etc/passwd"}], 400, "items[0].path: Extra inputs"),
        ([{"text": 3}], 400, "items[0].text: Input should be a valid string"),
        ([], 400, "items: List should have at least 1 item"),
        ([{"text": "a"}] * 9, 400, "items: a request has at most 8, got 9"),
    ],
)
def test_what_is_no_item_is_refused(
    ready: ServiceProcess, items: list[Any], status: int | None, said: str
) -> None:
    response = post(ready, json={"items": items}) if status else post(ready, content=repr(items).encode())
    assert response.status_code == (status or 415)
    assert said in response.json()["error"]["message"]


def test_half_a_letter_is_refused(ready: ServiceProcess) -> None:
    body = rb'{"items": [{"text": "half a letter: \ud800"}]}'
    response = post(ready, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)


def test_a_body_that_is_no_json_is_refused(ready: ServiceProcess) -> None:
    response = post(ready, content=b"[" * 100_000, headers={"content-type": "application/json"})
    assert response.status_code == 400


def test_other_types_of_content_are_refused(ready: ServiceProcess) -> None:
    """A web page could send them to this port, as a form of text, without the browser asking first."""
    response = post(ready, content=b'{"items": [{"text": "a"}]}', headers={"content-type": "text/plain"})
    assert (response.status_code, response.json()["error"]["message"]) == (
        415,
        "content-type must be application/json",
    )


def test_vectors_as_numbers(ready: ServiceProcess, served: VisualizedBGEEmbedding) -> None:
    picture = Image.new("RGB", (40, 40), "green")
    items = [{"text": "a mug"}, {"image": as_base64(picture)}]
    answer = post(ready, json={"items": items, "encoding": "float"}).json()
    expected = [served.get_text_embedding("a mug"), served.get_image_embedding(picture)]
    np.testing.assert_allclose(answer["embeddings"], expected, atol=1e-6, rtol=0)


def test_health_and_info(ready: ServiceProcess, served: VisualizedBGEEmbedding) -> None:
    assert httpx.get(f"{ready.endpoint}/health").json() == {"status": "ok"}
    info = httpx.get(f"{ready.endpoint}/v1/info").json()
    assert (info["dim"], info["fingerprint"], info["max_items"]) == (128, served.fingerprint, 8)


def test_it_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    assert (parser().parse_args([]).host, parser().parse_args([]).port) == ("127.0.0.1", 8765)


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_index_multimodal_rerank.serving.__main__.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"llama-index-multimodal-rerank\[serve\]"):
        main(["--model", "demo"])
