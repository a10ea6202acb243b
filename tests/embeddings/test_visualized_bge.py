"""VisualizedBGEEmbedding: the LlamaIndex face, on the tiny golden model."""

from __future__ import annotations

import asyncio
import copy
import doctest
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.schema import ImageDocument, ImageNode, MediaResource, Node, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from PIL import ExifTags, Image
from support import visualized_bge_golden
from support.drawing import draw_picture
from support.visualized_bge_golden import IMAGES, TINY_BERT

from llama_index_multimodal_rerank import (
    ImageLoadError,
    ImageText,
    VisualizedBGEEmbedding,
    image_node,
    to_image_nodes,
)
from llama_index_multimodal_rerank.embeddings import visualized_bge
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE
from llama_index_multimodal_rerank.schema.nodes import ImageTextNode

Vector = list[float]


def golden(case: str, kind: str = "embedding") -> np.ndarray:
    return visualized_bge_golden.golden(TINY_BERT)[f"{case}/{kind}"]


def case_of(kind: str) -> tuple[str, dict[str, Any]]:
    case = visualized_bge_golden.case_of(TINY_BERT, kind)
    return case["id"], case


def assert_close(vector: Any, expected: Any, tolerance: float = 5e-6) -> None:
    np.testing.assert_allclose(np.asarray(vector), np.asarray(expected), atol=tolerance, rtol=0)


# -- the numbers -----------------------------------------------------------------------------


async def test_every_method_gives_the_reference_vector(embed_model: VisualizedBGEEmbedding) -> None:
    case, facts = case_of("text")
    text = facts["texts"][0]
    expected = golden(case)[0]
    for vector in (
        embed_model.get_text_embedding(text),
        embed_model.get_query_embedding(text),
        await embed_model.aget_text_embedding(text),
        await embed_model.aget_query_embedding(text),
        embed_model.get_text_embedding_batch([text])[0],
        (await embed_model.aget_text_embedding_batch([text]))[0],
        embed_model.get_agg_embedding_from_queries([text]),
    ):
        assert_close(vector, expected)

    case, facts = case_of("image")
    image = IMAGES / facts["images"][0]
    expected = golden(case)[0]
    for vector in (
        embed_model.get_image_embedding(image),
        embed_model.get_image_embedding(str(image)),
        await embed_model.aget_image_embedding(image.read_bytes()),
        embed_model.get_image_embedding_batch([image], show_progress=True)[0],
        (await embed_model.aget_image_embedding_batch([Image.open(image)]))[0],
        embed_model.get_query_embedding(ImageText("", image)),
    ):
        assert_close(vector, expected)

    case, facts = case_of("image_text")
    image, text = IMAGES / facts["images"][0], facts["texts"][0]
    expected = golden(case)[0]
    for vector in (
        embed_model.get_image_text_embedding(text, image),
        await embed_model.aget_image_text_embedding(text, image),
        embed_model.get_query_embedding(ImageText(text, image)),
        (await embed_model.aget_text_embedding_batch([ImageText(text, image)]))[0],
    ):
        assert_close(vector, expected)


def test_mixed_batches_keep_their_order(tiny_checkpoint: Path, pictures: list[Path]) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=3
    )
    texts = [
        "a mug",
        ImageText("", pictures[0]),
        ImageText("a mug", pictures[1]),
        "a longer text about mugs",
    ] * 2
    batched = model.get_text_embedding_batch(texts)
    single = [model.get_text_embedding(text) for text in texts]
    assert_close(batched, single)
    first, again = np.asarray(batched[:4]), np.asarray(batched[4:])
    assert_close(first, again)
    cosines = first @ first.T
    assert cosines[~np.eye(4, dtype=bool)].max() < 0.99  # four different things


def test_decoding_ahead_keeps_every_picture_with_its_text(tiny_checkpoint: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(23)]
    for i, path in enumerate(paths):
        draw_picture(i, (40 + 7 * i, 30)).save(path)
    texts = [text for path in paths for text in (ImageText("", path), "words", ImageText(path.stem, path))]
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=4
    )
    expected = [model.get_text_embedding(text) for text in texts]
    assert_close(model.get_text_embedding_batch(texts), expected)
    paths[20].write_bytes(b"no picture any more")
    with pytest.raises(ImageLoadError, match=r"20\.png"):
        model.get_text_embedding_batch([ImageText("", path) for path in paths])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_next_batches_are_decoded_while_the_model_is_busy(
    tiny_checkpoint: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=2
    )
    more_than_a_batch = threading.Event()
    decoded: list[str] = []
    waits: list[bool] = []
    load, forward = ImageAccess.load, model.model.model.forward

    def counting(access: ImageAccess, source: Any, **kwargs: Any) -> Image.Image:
        image = load(access, source, **kwargs)
        decoded.append(str(source))
        if len(decoded) > 2:
            more_than_a_batch.set()
        return image

    def busy(*args: Any) -> Any:
        waits.append(more_than_a_batch.wait(20))
        return forward(*args)

    monkeypatch.setattr(ImageAccess, "load", counting)
    monkeypatch.setattr(model.model.model, "forward", busy)
    texts: list[str] = [ImageText("", path) for path in pictures]
    if not asynchronous:
        model.get_text_embedding_batch(texts)
    else:

        async def embed() -> None:  # in one thread, so that no second batch is at work
            with ThreadPoolExecutor(1) as one:
                asyncio.get_running_loop().set_default_executor(one)
                await model.aget_text_embedding_batch(texts)

        asyncio.run(embed())
    assert waits == [True] * 3
    assert sorted(decoded) == sorted(map(str, pictures))  # each once


async def test_one_text_twice_and_equal_texts_in_a_list(tiny_checkpoint: Path, pictures: list[Path]) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=2
    )
    twice = ImageText("a mug", pictures[0]).with_digest()
    texts = [twice, "a", twice, ImageText("a mug", pictures[1]), twice, ImageText("a mug", pictures[0])]
    expected = [model.get_text_embedding(text) for text in texts]
    assert_close(model.get_text_embedding_batch(texts), expected)
    assert_close(await model.aget_text_embedding_batch(texts), expected)


async def test_a_broken_picture_ends_an_asynchronous_batch(
    tiny_checkpoint: Path, pictures: list[Path]
) -> None:
    model = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", embed_batch_size=2)
    pictures[3].write_bytes(b"no picture any more")
    texts = [ImageText(f"{i}", path) for i, path in enumerate(pictures * 5)]
    with pytest.raises(ImageLoadError, match=r"picture-3\.png"):
        await model.aget_text_embedding_batch(texts)
    assert len(await model.aget_text_embedding_batch(texts[:3])) == 3


async def test_two_lists_at_a_time_keep_their_pictures(tiny_checkpoint: Path, pictures: list[Path]) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=2
    )
    texts = [ImageText("", path).with_digest() for path in pictures]
    backwards = texts[::-1]
    expected = [model.get_text_embedding(text) for text in texts]
    found, reverse, in_thread = await asyncio.gather(
        model.aget_text_embedding_batch(texts),
        model.aget_text_embedding_batch(backwards),
        asyncio.to_thread(model.get_text_embedding_batch, texts),
    )
    assert_close(found, expected)
    assert_close(reverse, expected[::-1])
    assert_close(in_thread, expected)


async def test_asynchronous_methods_read_no_file_in_the_event_loop(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    here, threads = threading.get_ident(), set()

    class Watched(os.PathLike):
        def __fspath__(self) -> str:
            threads.add(threading.get_ident())
            return str(pictures[0])

    await embed_model.aget_query_embedding(ImageText("a", Watched()))
    await embed_model.aget_text_embedding(ImageText("a", Watched()))
    await embed_model.aget_text_embedding_batch([ImageText("a", Watched())])
    assert threads
    assert here not in threads


async def test_batches_are_of_one_kind_and_similar_length(
    tiny_checkpoint: Path, pictures: list[Path]
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint),
        device="cpu",
        dtype="float32",
        embed_batch_size=2,
        callback_manager=CallbackManager([debug]),
    )
    words = "a mug with a long description"
    texts = ["mug", ImageText("", pictures[0]), words, ImageText(words, pictures[1]), "cup", words]
    expected = [model.get_text_embedding(text) for text in texts]
    for embed in (model.get_text_embedding_batch, model.aget_text_embedding_batch):
        debug.flush_event_logs()
        vectors = embed(texts)
        assert_close(await vectors if asyncio.iscoroutine(vectors) else vectors, expected)
        batches = [
            [chunk.partition("\n")[0] for chunk in end.payload[EventPayload.CHUNKS]]
            for _, end in debug.get_event_pairs(CBEventType.EMBEDDING)
        ]
        assert batches[0][0] == words
        assert batches[0][1].startswith("[image_digest: ")  # the picture without words
        assert batches[1:] == [[words, words], ["mug", "cup"]]


def test_normalize_false(tiny_checkpoint: Path) -> None:
    raw = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", normalize=False
    )
    case, facts = case_of("text")
    expected = golden(case, "embedding_raw")[0]
    assert_close(raw.get_text_embedding(facts["texts"][0]), expected, 1e-4)


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \n", ImageText("")])
def test_empty_text_is_an_error(embed_model: VisualizedBGEEmbedding, text: str) -> None:
    with pytest.raises(ValueError, match="empty text"):
        embed_model.get_text_embedding(text)


def test_a_picture_lost_by_a_splitter_is_an_error(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    with_digest = ImageText("a mug", pictures[0]).with_digest()
    with pytest.raises(ValueError, match=r"names a picture but does not carry it.*transformations"):
        embed_model.get_text_embedding(str.__str__(with_digest)[:])


def test_a_picture_changed_since_its_node_was_made_is_an_error(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    node = image_node(pictures[0])
    pictures[0].write_bytes(pictures[1].read_bytes())
    with pytest.raises(ImageLoadError, match=r"picture-0\.png.*changed since"):
        embed_model([node])


def test_errors_name_the_file(embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> None:
    pictures[0].write_bytes(pictures[0].read_bytes()[:200])
    with pytest.raises(ImageLoadError, match=r"picture-0\.png'?: it is damaged"):
        embed_model.get_image_embedding(pictures[0])
    with pytest.raises(ImageLoadError, match="allow_urls=True"):
        embed_model.get_image_embedding("http://127.0.0.1:9/a.png")


def test_one_vector_short_is_an_error(tiny_checkpoint: Path) -> None:
    class OneShort(VisualizedBGE):
        def encode(self, *args: Any, **kwargs: Any) -> Any:
            return super().encode(*args, **kwargs)[:-1]

    model = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu")
    model.model.__class__ = OneShort
    with pytest.raises(RuntimeError, match="1 vectors for 2 items"):
        model([TextNode(text="a"), TextNode(text="b")])


def test_unknown_model_and_options_are_clear(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError), match="nowhere"):
        VisualizedBGEEmbedding(model_name=str(tmp_path / "nowhere")).get_text_embedding("a")
    with pytest.raises(ValueError, match="float8"):
        VisualizedBGEEmbedding(model_name="x", dtype="float8").get_text_embedding("a")
    with pytest.raises(ValueError, match="embed_batch_size"):
        VisualizedBGEEmbedding(embed_batch_size=0)


# -- caches ----------------------------------------------------------------------------------


async def test_cache_keeps_pictures_texts_and_pairs_apart(
    tiny_checkpoint: Path, pictures: list[Path]
) -> None:
    plain = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu")
    cached = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", embeddings_cache=SimpleKVStore()
    )
    texts = ["a mug", ImageText("a mug", pictures[0]), ImageText("a mug", pictures[1])]
    texts += [ImageText("", pictures[0]), ImageText("", pictures[1])]
    expected = plain.get_text_embedding_batch(texts)
    for _ in range(2):
        assert_close(cached.get_text_embedding_batch(texts), expected)
        assert_close([cached.get_query_embedding(text) for text in texts], expected)
        assert_close(await cached.aget_text_embedding_batch(texts), expected)
        assert_close([await cached.aget_query_embedding(text) for text in texts], expected)
    assert_close(cached.get_image_embedding(pictures[0]), expected[3])


def test_a_batch_from_the_cache_needs_no_model(tiny_checkpoint: Path, pictures: list[Path]) -> None:
    cache = SimpleKVStore()
    texts = ["a mug", ImageText("a mug", pictures[0]), ImageText("", pictures[1])]
    first = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", embed_batch_size=2, embeddings_cache=cache
    )
    expected = first.get_text_embedding_batch(texts)
    without = VisualizedBGEEmbedding(model_name="/nowhere", embed_batch_size=2, embeddings_cache=cache)
    assert_close(without.get_text_embedding_batch(texts), expected)


def test_nor_does_it_import_torch(embed_model: VisualizedBGEEmbedding, tmp_path: Path) -> None:
    texts = ["a mug", "a cup", "a lamp"]
    cache = SimpleKVStore()
    embed_model.model_copy(update={"embeddings_cache": cache}).get_text_embedding_batch(texts)
    cache.persist(str(tmp_path / "cache.json"))
    program = f"""
import sys
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index_multimodal_rerank import VisualizedBGEEmbedding
cache = SimpleKVStore.from_persist_path({str(tmp_path / "cache.json")!r})
model = VisualizedBGEEmbedding(model_name="/nowhere", embed_batch_size=2, embeddings_cache=cache)
assert len(model.get_text_embedding_batch({texts!r})) == 3
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cache_sees_changed_bytes(tiny_checkpoint: Path, pictures: list[Path]) -> None:
    cached = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", embeddings_cache=SimpleKVStore()
    )
    before = cached.get_image_embedding(pictures[0])
    other = cached.get_image_embedding(pictures[1])
    pictures[0].write_bytes(pictures[1].read_bytes())
    assert_close(cached.get_image_embedding(pictures[0]), other)
    assert np.abs(np.subtract(before, other)).max() > 1e-3


# -- nodes -----------------------------------------------------------------------------------


async def test_all_kinds_of_nodes(embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> None:
    image = embed_model.get_image_embedding(pictures[0])
    pair = embed_model.get_image_text_embedding("cap", pictures[0])

    def nodes() -> list[Any]:
        return [
            image_node(pictures[0], metadata={"brand": "Acme"}),
            ImageNode(image_path=str(pictures[0]), metadata={"brand": "Acme"}),
            ImageDocument(image_path=str(pictures[0])),
            Node(image_resource=MediaResource(path=pictures[0])),
            Node(image_resource=MediaResource(data=pictures[0].read_bytes())),
            image_node(pictures[0], text="cap", id_="with text"),
            ImageNode(image_path=str(pictures[0]), text="cap"),
            TextNode(text="words"),
        ]

    expected = [image] * 5 + [pair] * 2 + [embed_model.get_text_embedding("words")]
    for given, returned in (
        (batch := to_image_nodes(nodes()), embed_model(batch)),
        (batch := to_image_nodes(nodes()), await embed_model.acall(batch)),
    ):
        assert_close([node.embedding for node in returned], expected)
        assert_close([node.embedding for node in given], expected)
        assert [node.node_id for node in returned] == [node.node_id for node in given]
        assert [isinstance(node, ImageTextNode) for node in returned[2:5]] == [True] * 3


# -- life of the object ----------------------------------------------------------------------


def test_loads_once_under_threads(tiny_checkpoint: Path) -> None:
    loads: list[VisualizedBGE] = []

    class Counting(VisualizedBGEEmbedding):
        def _load(self) -> VisualizedBGE:
            loads.append(super()._load())
            return loads[-1]

    model = Counting(model_name=str(tiny_checkpoint), device="cpu")
    assert loads == []
    results: dict[int, Vector] = {}
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        barrier.wait()
        results[i] = model.get_text_embedding(f"text {i}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    for i in range(8):
        assert_close(results[i], model.get_text_embedding(f"text {i}"))


def test_a_failed_load_can_be_tried_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = VisualizedBGEEmbedding(model_name=str(tmp_path / "late"), device="cpu")
    with pytest.raises(OSError):  # noqa: PT011
        model.get_text_embedding("a")
    (tmp_path / "late").symlink_to(tiny_checkpoint)
    assert len(model.get_text_embedding("a")) == model.dim


@pytest.mark.parametrize(
    "twin",
    [
        lambda model: VisualizedBGEEmbedding.from_dict(model.to_dict()),
        lambda model: VisualizedBGEEmbedding.from_json(model.to_json()),
        lambda model: pickle.loads(pickle.dumps(model)),
        copy.deepcopy,
        copy.copy,
    ],
)
def test_twins_embed_the_same(
    tiny_checkpoint: Path, twin: Callable[[VisualizedBGEEmbedding], VisualizedBGEEmbedding]
) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", embed_batch_size=7, apply_exif_orientation=True
    )
    vector = model.get_text_embedding("a mug")
    other = twin(model)
    assert (other.embed_batch_size, other.apply_exif_orientation) == (7, True)
    assert_close(other.get_text_embedding("a mug"), vector)


def test_fields_and_class_name_are_those_that_were_saved_before() -> None:
    assert VisualizedBGEEmbedding(model_name="m", allow_urls=["a.example"]).to_dict() == {
        "model_name": "m",
        "embed_batch_size": 256,
        "num_workers": None,
        "embeddings_cache": None,
        "device": None,
        "dtype": None,
        "normalize": True,
        "torch_compile": False,
        "cache_folder": None,
        "revision": None,
        "local_files_only": False,
        "apply_exif_orientation": False,
        "allow_urls": ["a.example"],
        "data_root": None,
        "show_progress_bar": False,
        "on_error": "raise",
        "class_name": "VisualizedBGEEmbedding",
    }


def test_the_example_runs() -> None:
    found = doctest.testmod(visualized_bge)
    assert found.attempted >= 9
    assert found.failed == 0


def test_pickle_is_small_and_copies_share_the_model(embed_model: VisualizedBGEEmbedding) -> None:
    embed_model.get_text_embedding("a")
    assert len(pickle.dumps(embed_model)) < 5000
    assert copy.deepcopy(embed_model).model is embed_model.model


def test_exif_switch_changes_the_vector_and_the_fingerprint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    picture = draw_picture(0, (320, 200))
    picture.getexif()[ExifTags.Base.Orientation] = 6  # to be turned to the right
    picture.save(path, exif=picture.getexif())
    as_stored, turned = (
        VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", apply_exif_orientation=flag)
        for flag in (False, True)
    )
    upright = Image.open(path).transpose(Image.Transpose.ROTATE_270)
    assert_close(turned.get_image_embedding(path), as_stored.get_image_embedding(upright))
    difference = np.subtract(turned.get_image_embedding(path), as_stored.get_image_embedding(path))
    assert np.abs(difference).max() > 1e-2
    assert turned.fingerprint != as_stored.fingerprint


# -- events ----------------------------------------------------------------------------------


async def test_events_carry_strings(tiny_checkpoint: Path, pictures: list[Path]) -> None:
    seen: list[list[str]] = []

    class Handler(BaseEventHandler):
        @classmethod
        def class_name(cls) -> str:
            return "Handler"

        def handle(self, event: Any, **kwargs: Any) -> None:
            if isinstance(event, EmbeddingEndEvent):
                event.model_dump_json()
                seen.append(event.chunks)

    debug = LlamaDebugHandler(print_trace_on_end=False)
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", callback_manager=CallbackManager([debug])
    )
    handler = Handler()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(handler)
    try:
        model.get_image_embedding_batch([Image.open(pictures[0]), pictures[1]])
        await model.aget_image_embedding(pictures[0].read_bytes())
        model.get_query_embedding(ImageText("a mug", pictures[0]))
    finally:
        dispatcher.event_handlers.remove(handler)
    assert [len(chunks) for chunks in seen] == [2, 1, 1]
    assert all(isinstance(chunk, str) for chunks in seen for chunk in chunks)
    assert seen[2][0].startswith("a mug\n[image_digest: sha256:")
    pairs = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert [len(end.payload[EventPayload.CHUNKS]) for _, end in pairs] == [2, 1, 1]
    assert all(isinstance(c, str) for _, end in pairs for c in end.payload[EventPayload.CHUNKS])


def test_two_event_loops(embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> None:
    first, second = (asyncio.run(embed_model.aget_image_embedding(pictures[0])) for _ in range(2))
    assert_close(first, second)
