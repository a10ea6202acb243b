"""RemoteImageTextEmbedding: the same vectors and errors as the library, from a service in a thread."""

from __future__ import annotations

import asyncio
import copy
import doctest
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.bridge.pydantic import PrivateAttr, ValidationError
from PIL import Image
from support import signals
from support.drawing import draw_picture

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from llama_index_multimodal_rerank import (
    EmbeddingServiceError,
    ImageLoadError,
    ImageText,
    ImageTextQuery,
    MagicLensEmbedding,
    RemoteImageTextEmbedding,
    VisualizedBGEEmbedding,
    image_node,
    milvus_store,
)
from llama_index_multimodal_rerank.embeddings import remote
from llama_index_multimodal_rerank.models.magiclens import (
    FusionConfig,
    MagicLens,
    MagicLensConfig,
    TextConfig,
    VisionConfig,
)
from llama_index_multimodal_rerank.schema.nodes import ImageTextNode
from llama_index_multimodal_rerank.serving.__main__ import parser
from llama_index_multimodal_rerank.serving.in_thread import serve_in_thread
from llama_index_multimodal_rerank.serving.limits import Limits

from .conftest import mixed_items


@pytest.fixture(scope="module")
def endpoint(served: VisualizedBGEEmbedding) -> Iterator[str]:
    with serve_in_thread(served, Limits(max_items=4, max_body_bytes=200_000)) as endpoint:
        yield endpoint


@pytest.fixture
def embed_model(endpoint: str) -> RemoteImageTextEmbedding:
    return RemoteImageTextEmbedding(endpoint=endpoint)


class Held(VisualizedBGEEmbedding):
    """Waits in its first batch until it is let go, and notes how large batches are."""

    _go: threading.Event = PrivateAttr(default_factory=threading.Event)
    _batches: list[int] = PrivateAttr(default_factory=list)

    def encode_prepared(self, items: Sequence[Any], *, show_progress: bool = False) -> Any:
        self._batches.append(len(items))
        assert self._go.wait(120)
        return super().encode_prepared(items, show_progress=show_progress)


@pytest.fixture
def held() -> Held:
    return Held(model_name="demo", device="cpu", dtype="float32")


def assert_close(vectors: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(vectors), np.asarray(expected), atol=1e-6, rtol=0)


def wait_for(condition: Any) -> None:
    for _ in range(12_000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise TimeoutError


# -- the numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_all_kinds(
    embed_model: RemoteImageTextEmbedding, served: VisualizedBGEEmbedding, mode: str
) -> None:
    picture = draw_picture(3, (70, 50)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 200)
    assert_close(embed_model.get_image_embedding(picture), served.get_image_embedding(picture))


def test_every_way_of_llama_index(
    embed_model: RemoteImageTextEmbedding, served: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    items = [*mixed_items(11), ImageText("a path", pictures[0])]
    expected = served.encode(items)
    assert_close(embed_model.get_text_embedding_batch(items), expected)
    assert_close(asyncio.run(embed_model.aget_text_embedding_batch(items)), expected)
    assert_close(embed_model.get_query_embedding(items[1]), expected[1])
    assert_close(asyncio.run(embed_model.aget_query_embedding(items[2])), expected[2])
    assert_close(embed_model.get_image_embedding_batch(pictures), served.get_image_embedding_batch(pictures))
    assert_close(
        asyncio.run(embed_model.aget_image_embedding(pictures[1])), served.get_image_embedding(pictures[1])
    )
    nodes = [image_node(path) for path in pictures]
    assert_close([node.embedding for node in embed_model(nodes)], [node.embedding for node in served(nodes)])


def test_many_queries_of_one_event_loop_are_one_batch(held: Held) -> None:
    queries = [f"a mug, number {number}" for number in range(40)]

    async def ask(embed_model: RemoteImageTextEmbedding) -> list[list[float]]:
        asked = [asyncio.create_task(embed_model.aget_query_embedding(query)) for query in queries]
        await asyncio.to_thread(wait_for, lambda: held._batches)
        await asyncio.sleep(0.5)
        held._go.set()
        return await asyncio.gather(*asked)

    with serve_in_thread(held) as endpoint:
        vectors = asyncio.run(ask(RemoteImageTextEmbedding(endpoint=endpoint, parallel_requests=40)))
    assert_close(vectors, held.encode(queries))
    assert sum(held._batches[:-1]) == 40  # the last is that of the line before
    assert max(held._batches[:-1]) > 6


# -- one batch for many clients --------------------------------------------------------------


def test_a_bad_picture_does_not_fail_the_clients_beside_it(held: Held) -> None:
    """32 clients have an item each in one batch, but for the one whose picture is none."""
    items: list[ImageText | str] = [*mixed_items(32)]
    items[20] = ImageText("a mug", b"this is no picture")

    def embed(item: ImageText | str) -> list[float] | str:
        try:
            return RemoteImageTextEmbedding(endpoint=endpoint).get_text_embedding(item)
        except ImageLoadError as error:
            return str(error)

    with serve_in_thread(held) as endpoint, ThreadPoolExecutor(33) as pool:
        first = pool.submit(embed, "the first")
        wait_for(lambda: held._batches)
        futures = [pool.submit(embed, item) for item in items]
        wait_for(futures[20].done)  # its neighbours still wait for the model
        assert sum(future.done() for future in futures) == 1
        threading.Event().wait(1.0)
        held._go.set()
        vectors = [future.result() for future in futures]
        assert_close(first.result(), held.get_text_embedding("the first"))
    assert str(vectors[20]).startswith("cannot read the picture <18 bytes>: it is not a picture")
    good = [number for number in range(32) if number != 20]
    assert_close([vectors[number] for number in good], held.encode([items[number] for number in good]))
    assert max(held._batches[1:-2]) > 1


def test_a_full_queue_is_a_503_and_clients_come_again(held: Held) -> None:
    with serve_in_thread(held, Limits(max_requests=1)) as endpoint, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(RemoteImageTextEmbedding(endpoint=endpoint).get_text_embedding, "a mug")
        wait_for(lambda: held._batches)
        response = httpx.post(f"{endpoint}/v1/embed", json={"items": [{"text": "a cup"}]})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["error"]["message"].startswith("the queue is full: 1 requests of ")
        with pytest.raises(EmbeddingServiceError, match="gave no answer for 0 seconds"):
            RemoteImageTextEmbedding(endpoint=endpoint, retry_seconds=0).get_text_embedding("a cup")
        second = ThreadPoolExecutor(1).submit(
            RemoteImageTextEmbedding(endpoint=endpoint).get_text_embedding, "a cup"
        )
        threading.Event().wait(0.3)
        assert not second.done()
        held._go.set()
        assert_close([waiting.result(), second.result()], held.encode(["a mug", "a cup"]))


# -- limits ----------------------------------------------------------------------------------


def test_what_nobody_waits_for_any_more_is_not_embedded(held: Held) -> None:
    with serve_in_thread(held) as endpoint, ThreadPoolExecutor(1) as pool:
        first = pool.submit(RemoteImageTextEmbedding(endpoint=endpoint).get_text_embedding, "a mug")
        wait_for(lambda: held._batches)
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{endpoint}/v1/embed", json={"items": [{"text": "a cup"}] * 5}, timeout=0.3)
        for _ in range(3):  # the service has seen all that came before
            assert httpx.get(f"{endpoint}/health").status_code == 200
        held._go.set()
        first.result()
        RemoteImageTextEmbedding(endpoint=endpoint).get_text_embedding("a plate")
    assert held._batches == [1, 1]


def test_a_service_that_is_too_busy_is_called_so(held: Held) -> None:
    with serve_in_thread(held, Limits(max_requests=1)) as endpoint, ThreadPoolExecutor(1) as pool:
        first = pool.submit(RemoteImageTextEmbedding(endpoint=endpoint).get_text_embedding, "a mug")
        wait_for(lambda: held._batches)
        busy = RemoteImageTextEmbedding(endpoint=endpoint, retry_seconds=0, parallel_requests=3)
        try:
            with pytest.raises(EmbeddingServiceError, match=r"raise retry_seconds, .* parallel_requests=3\."):
                busy.get_text_embedding("a cup")
        finally:
            held._go.set()
        first.result()


def test_a_service_that_is_too_slow_is_called_so(held: Held) -> None:
    with serve_in_thread(held) as endpoint:
        slow = RemoteImageTextEmbedding(endpoint=endpoint, retry_seconds=0, timeout=0.3)
        said = r"gave no answer for 0 seconds \(ReadTimeout: .*timeout=0\.3 allows: raise timeout, or lower"
        try:
            with pytest.raises(EmbeddingServiceError, match=said):
                slow.get_text_embedding("a cup")
        finally:
            held._go.set()


def test_a_body_that_is_too_long_is_a_413(endpoint: str) -> None:
    for content in (b"x" * 2_000_000, (b"x" * 50_000 for _ in range(40))):
        response = httpx.post(
            f"{endpoint}/v1/embed", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413
        assert "limit of 200000" in response.json()["error"]["message"]


def test_requests_are_cut_to_what_the_service_takes(
    embed_model: RemoteImageTextEmbedding, served: VisualizedBGEEmbedding
) -> None:
    """Four items and 200,000 bytes of a request; a picture of noise has 60,000."""
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (140, 140, 3), dtype=np.uint8)) for _ in range(9)]
    items = [ImageText(f"é 漢 {number}", picture) for number, picture in enumerate(noise)]
    assert_close(embed_model.encode(items), served.encode(items))


def test_a_picture_that_is_too_large_for_the_service_is_named(
    embed_model: RemoteImageTextEmbedding, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "large.png"
    Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(path)
    with pytest.raises(ImageLoadError, match=r"large\.png': it has 27\d{4} bytes, a third more as base64"):
        embed_model.get_image_embedding(path)


# -- errors ----------------------------------------------------------------------------------


def test_a_skipped_picture_is_named_and_the_others_are_embedded(
    endpoint: str, served: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    pictures[2].write_bytes(b"this is no picture")
    embed_model = RemoteImageTextEmbedding(endpoint=endpoint, on_error="skip")
    kept = embed_model([ImageTextNode(image_path=str(path)) for path in pictures])
    assert len(kept) == 5
    assert ["picture-2.png" in skipped.reason for skipped in embed_model.skipped] == [True]
    assert_close(kept[2].embedding, served.get_image_embedding(pictures[3]))


def test_a_picture_that_changed_since_its_node_was_made_is_refused(
    embed_model: RemoteImageTextEmbedding, pictures: list[Path]
) -> None:
    node = image_node(pictures[0])
    pictures[0].write_bytes(pictures[1].read_bytes())
    with pytest.raises(ImageLoadError, match="changed since its node was made"):
        embed_model([node])


def test_files_and_addresses_are_read_by_the_rules_of_the_client(
    endpoint: str, pictures: list[Path], tmp_path: Path
) -> None:
    embed_model = RemoteImageTextEmbedding(endpoint=endpoint, data_root=str(tmp_path / "other"))
    with pytest.raises(ImageLoadError, match="outside"):
        embed_model.get_image_embedding(pictures[0])
    with pytest.raises(ImageLoadError, match="allow_urls"):
        embed_model.get_image_embedding("http://127.0.0.1:1/x.png")


@pytest.mark.parametrize("text", ["", "  ", "[image_digest: unread:" + "0" * 64 + "]"])
def test_texts_without_an_embedding(embed_model: RemoteImageTextEmbedding, text: str) -> None:
    with pytest.raises(ValueError, match=r"empty text|names a picture|lost"):
        embed_model.get_text_embedding(text)


def test_a_service_that_is_not_there() -> None:
    embed_model = RemoteImageTextEmbedding(endpoint="http://127.0.0.1:9", retry_seconds=0.1)
    with pytest.raises(EmbeddingServiceError, match=r"http://127\.0\.0\.1:9 gave no answer") as caught:
        embed_model.get_text_embedding("a mug")
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("answers", [True, False])
def test_ctrl_c_ends_the_wait_for_a_service(served: VisualizedBGEEmbedding, answers: bool) -> None:
    program = """
import os, signal, sys
from llama_index_multimodal_rerank import RemoteImageTextEmbedding
from llama_index_multimodal_rerank.embeddings.remote_service import EmbeddingService

endpoint, answers = sys.argv[1:]
embed_model = RemoteImageTextEmbedding(endpoint=endpoint, retry_seconds=3600)
if answers == "True":
    embed_model.get_text_embedding("a mug")
    print("answered", flush=True)
    sys.stdin.readline()
attempts = []
def count(self, state, log=EmbeddingService._log):
    attempts.append(state)
    if len(attempts) == 3:
        os.kill(os.getpid(), signal.SIGINT)
EmbeddingService._log = count
try:
    embed_model.get_text_embedding_batch(["a mug", "a cup"] * 20)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with serve_in_thread(served) as endpoint:
        if not answers:
            endpoint = "http://127.0.0.1:9"
        child = subprocess.Popen(
            [sys.executable, "-c", program, endpoint, str(answers)],
            preexec_fn=signals.hear,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if answers:
            assert child.stdout is not None
            assert child.stdout.readline() == "answered\n"
    try:
        assert child.communicate("go on\n", timeout=60)[0] == "interrupted\n"
    finally:
        child.kill()


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    endpoint: str, served: VisualizedBGEEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    embed_model = RemoteImageTextEmbedding(endpoint=endpoint, retry_seconds=0)
    assert_close(embed_model.get_text_embedding("a mug"), served.get_text_embedding("a mug"))


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>hello"), (200, b"{}"), (404, b"no"), (200, b"[1]")]
)
def test_what_is_no_embedding_service(status: int, body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        embed_model = RemoteImageTextEmbedding(endpoint=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(EmbeddingServiceError, match="is no embedding service"):
            embed_model.get_text_embedding("a mug")
        server.shutdown()


def test_a_service_that_came_back_with_another_model_is_refused(served: VisualizedBGEEmbedding) -> None:
    with serve_in_thread(served) as endpoint:
        embed_model = RemoteImageTextEmbedding(endpoint=endpoint)
        embed_model.get_text_embedding("a mug")
    other = VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32", normalize=False)
    port = int(endpoint.rpartition(":")[2])
    with serve_in_thread(other, port=port):
        with pytest.raises(EmbeddingServiceError, match="has another model or other settings"):
            embed_model.get_text_embedding("a mug")
        again = RemoteImageTextEmbedding(endpoint=endpoint)
        assert_close(again.get_text_embedding("a mug"), other.get_text_embedding("a mug"))


def test_a_model_that_fails_is_named_at_once(tmp_path: Path) -> None:
    class Failing(VisualizedBGEEmbedding):
        def encode_prepared(self, items: Sequence[Any], *, show_progress: bool = False) -> Any:
            raise FloatingPointError("the embedding of items[0] is not finite")

    failing = Failing(model_name="demo", device="cpu", dtype="float32")
    said = r"answered 500: the embedding of items\[0\]"
    with serve_in_thread(failing) as endpoint, pytest.raises(EmbeddingServiceError, match=said):
        RemoteImageTextEmbedding(endpoint=endpoint).get_text_embedding("a mug")


def test_what_the_model_of_the_service_does_not_embed(tiny_magiclens: MagicLensEmbedding) -> None:
    with serve_in_thread(tiny_magiclens) as endpoint:
        embed_model = RemoteImageTextEmbedding(endpoint=endpoint)
        with pytest.raises(ValueError, match="MagicLens embeds no text alone"):
            embed_model.get_text_embedding("a mug")
        picture = draw_picture(1)
        assert_close(
            embed_model.get_image_text_embedding("at night", picture),
            tiny_magiclens.get_image_text_embedding("at night", picture),
        )


@pytest.fixture
def tiny_magiclens(tmp_path: Path) -> MagicLensEmbedding:
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = MagicLensConfig(
        name="tiny",
        text=TextConfig(hidden_size=16, **sizes),
        vision=VisionConfig(hidden_size=16, patch_size=32, **sizes),
        fusion=FusionConfig(hidden_size=16, pooler_size=64, **sizes),
    )
    MagicLens.from_config(config, seed=0).save_pretrained(tmp_path / "magiclens")
    return MagicLensEmbedding(model_name=str(tmp_path / "magiclens"), device="cpu", dtype="float32")


# -- the seam --------------------------------------------------------------------------------


def test_a_collection_of_the_library_is_opened_through_the_service_and_the_other_way_round(
    embed_model: RemoteImageTextEmbedding,
    served: VisualizedBGEEmbedding,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    uri = str(tmp_path / "shop.db")
    store = milvus_store(uri, served)
    store.add(list(served([image_node(path) for path in pictures[:3]])))
    through_service = milvus_store(uri, embed_model)
    through_service.add(list(embed_model([image_node(path) for path in pictures[3:]])))
    for own in (served, embed_model):
        index = VectorStoreIndex.from_vector_store(milvus_store(uri, own), embed_model=own)
        for path in (pictures[1], pictures[4]):
            found = index.as_retriever(similarity_top_k=1).retrieve(ImageTextQuery(image_path=str(path)))
            assert found[0].node.image_path == str(path)
            assert found[0].score == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "twin",
    [
        lambda model: RemoteImageTextEmbedding.from_dict(model.to_dict()),
        lambda model: pickle.loads(pickle.dumps(model)),
        copy.deepcopy,
        copy.copy,
    ],
)
def test_twins_ask_the_same_service(embed_model: RemoteImageTextEmbedding, twin: Any) -> None:
    vector = embed_model.get_text_embedding("a mug")
    other = twin(embed_model)
    assert other.endpoint == embed_model.endpoint
    assert_close(other.get_text_embedding("a mug"), vector)


def test_a_forked_process_has_connections_of_its_own(endpoint: str) -> None:
    script = """
import os, sys
from llama_index_multimodal_rerank import RemoteImageTextEmbedding
embed_model = RemoteImageTextEmbedding(endpoint=sys.argv[1])
vector = embed_model.get_text_embedding("a mug")
child = os.fork()
if not child:
    os._exit(embed_model.get_text_embedding("a mug") != vector)
assert os.waitpid(child, 0)[1] == 0
assert embed_model.get_text_embedding("a mug") == vector
"""
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", script, endpoint],
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoint": "127.0.0.1:8765"}, "must start with http:// or https://"),
        ({"timeout": 0}, "greater than 0"),
        ({"parallel_requests": 0}, "greater than 0"),
        ({"device": "cpu"}, "device"),
        ({"normalize": False}, "normalize"),
    ],
)
def test_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RemoteImageTextEmbedding(**{"endpoint": "http://127.0.0.1:8765", **settings})


def test_the_example_runs() -> None:
    found = doctest.testmod(remote)
    assert found.attempted >= 5
    assert found.failed == 0


def test_the_documentation_has_the_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs" / "embedding_service.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE))
    assert len(rows) == 5
    for name, default in rows.items():
        assert RemoteImageTextEmbedding.model_fields[name].default == float(default), name
    options = dict(re.findall(r"`--(max-[a-z-]+)` \((\d+)\)", text))
    assert len(options) == 4
    for name, default in options.items():
        assert parser().get_default(name.replace("-", "_")) == int(default), name
