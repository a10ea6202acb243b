"""MagicLensEmbedding: the LlamaIndex face, on the tiny golden model, through Milvus Lite and the reranker."""

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
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from support import magiclens_golden
from support.drawing import draw_picture
from support.magiclens_golden import IMAGES, TINY, TOLERANCES
from support.vlm_doubles import TextModel

from llama_index_multimodal_rerank import (
    EmbeddingMismatchError,
    ImageLoadError,
    ImageText,
    ImageTextQuery,
    MagicLensEmbedding,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    image_node,
    load_image_nodes,
    milvus_store,
)
from llama_index_multimodal_rerank.embeddings import magiclens

TOLERANCE = TOLERANCES["embedding"]


def golden(kind: str) -> tuple[str, Path, np.ndarray]:
    """Text, picture and vector of the first case of a kind."""
    entry = next(each for each in magiclens_golden.cases(TINY[0]) if each["kind"] == kind)
    vector = magiclens_golden.golden(TINY[0])[f"{entry['id']}/embedding"][0]
    return entry.get("texts", [""])[0], IMAGES / entry["images"][0], vector


def plain_golden() -> tuple[str, Path, np.ndarray]:
    """A picture with a text that has words in it."""
    entry = next(
        each
        for each in magiclens_golden.cases(TINY[0])
        if each["kind"] == "image_text" and each["texts"][0].strip() and "weight_scale" not in each
    )
    vector = magiclens_golden.golden(TINY[0])[f"{entry['id']}/embedding"][0]
    return entry["texts"][0], IMAGES / entry["images"][0], vector


def assert_close(vector: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(vector), np.asarray(expected), atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint in the released format."""
    return magiclens_golden.write_folder(tmp_path_factory.mktemp("magiclens") / "model", TINY[0])


@pytest.fixture(scope="module")
def lens(checkpoint: Path) -> MagicLensEmbedding:
    """A loaded tiny model; do not change its fields."""
    return MagicLensEmbedding(model_name=str(checkpoint), device="cpu", dtype="float32")


@pytest.fixture
def no_llm() -> Any:
    Settings.llm = None
    yield
    Settings._llm = None


async def test_golden_vector_by_every_method(lens: MagicLensEmbedding) -> None:
    _, image, expected = golden("image")
    for vector in (
        lens.get_image_embedding(image),
        lens.get_image_embedding(str(image)),
        await lens.aget_image_embedding(image.read_bytes()),
        lens.get_image_embedding_batch([image], show_progress=True)[0],
        (await lens.aget_image_embedding_batch([image]))[0],
        lens.get_query_embedding(ImageText("", image)),
    ):
        assert_close(vector, expected)
    text, image, expected = plain_golden()
    for vector in (
        lens.get_image_text_embedding(text, image),
        await lens.aget_image_text_embedding(text, image),
        lens.get_query_embedding(ImageText(text, image)),
        await lens.aget_query_embedding(ImageText(text, image)),
        lens.get_agg_embedding_from_queries([ImageText(text, image)]),
        (await lens.aget_text_embedding_batch([ImageText(text, image)]))[0],
    ):
        assert_close(vector, expected)


async def test_batches_decoded_ahead_equal_one_by_one(checkpoint: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(11)]
    for i, path in enumerate(paths):
        draw_picture(i, (40 + 7 * i, 30)).save(path)
    texts: list[str] = [
        text for path in paths for text in (ImageText("", path), ImageText(f"in {path.stem}", path))
    ]
    model = MagicLensEmbedding(model_name=str(checkpoint), device="cpu", dtype="float32", embed_batch_size=4)
    expected = [model.get_text_embedding(text) for text in texts]
    assert_close(model.get_text_embedding_batch(texts), expected)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    assert_close(await model.aget_text_embedding_batch(texts), expected)
    found = await asyncio.gather(
        model.aget_text_embedding_batch(texts), model.aget_text_embedding_batch(texts[::-1])
    )
    assert_close(found[0], expected)
    assert_close(found[1], expected[::-1])


# -- a text alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a mug", ImageText("a mug")])
async def test_a_text_alone_is_an_error_that_names_the_alternative(
    text: str, lens: MagicLensEmbedding
) -> None:
    message = r"embeds no text alone.*'a mug'.*ImageTextQuery\(text, image_path=.*VisualizedBGEEmbedding"
    for embed in (lens.get_text_embedding, lens.get_query_embedding):
        with pytest.raises(ValueError, match=message):
            embed(text)
    with pytest.raises(ValueError, match=message):
        await lens.aget_query_embedding(text)
    with pytest.raises(ValueError, match=message):
        lens([TextNode(text=str(text))])


@pytest.mark.parametrize("text", ["", "  \n", ImageText("")])
def test_empty_text_is_an_error(lens: MagicLensEmbedding, text: str) -> None:
    with pytest.raises(ValueError, match="empty text"):
        lens.get_text_embedding(text)


def test_a_text_alone_needs_no_weights_to_be_refused() -> None:
    with pytest.raises(ValueError, match="embeds no text alone"):
        MagicLensEmbedding(model_name="/nowhere")._to_item("a mug")


def test_a_text_among_pictures_stops_before_anything_is_written(
    lens: MagicLensEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(tmp_path / "m.db", lens)
    pipeline = IngestionPipeline(transformations=[lens], vector_store=store)
    nodes = [*map(image_node, pictures), TextNode(text="only words")]
    with pytest.raises(ValueError, match="embeds no text alone"):
        pipeline.run(nodes=nodes)
    rows = store.client.query(store.collection_name, filter="", output_fields=["count(*)"])
    assert rows[0]["count(*)"] == 0


# -- pictures come in by the same door ------------------------------------------------------------


def test_data_root_and_allow_urls(checkpoint: Path, pictures: list[Path], tmp_path: Path) -> None:
    confined = MagicLensEmbedding(model_name=str(checkpoint), device="cpu", data_root=str(pictures[0].parent))
    assert len(confined.get_image_embedding(pictures[0])) == confined.dim
    outside = tmp_path / "outside.png"
    draw_picture(0).save(outside)
    with pytest.raises(ImageLoadError, match="data_root"):
        confined.get_image_embedding(outside)
    with pytest.raises(ImageLoadError, match="allow_urls=True"):
        confined.get_image_embedding("http://127.0.0.1:9/a.png")

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(pictures[0].parent))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        fetching = MagicLensEmbedding(model_name=str(checkpoint), device="cpu", allow_urls=[host])
        found = fetching.get_image_embedding(f"http://{host}/{pictures[0].name}")
        server.shutdown()
    assert_close(found, fetching.get_image_embedding(pictures[0]))


def test_broken_pictures_are_named(lens: MagicLensEmbedding, pictures: list[Path]) -> None:
    pictures[0].write_bytes(pictures[0].read_bytes()[:200])
    with pytest.raises(ImageLoadError, match=r"picture-0\.png'?: it is damaged"):
        lens.get_image_embedding(pictures[0])


async def test_cache_keeps_pictures_and_pairs_apart(checkpoint: Path, pictures: list[Path]) -> None:
    cached = MagicLensEmbedding(
        model_name=str(checkpoint), device="cpu", dtype="float32", embeddings_cache=SimpleKVStore()
    )
    texts: list[str] = [ImageText(words, path) for words in ("", "red") for path in pictures[:2]]
    first = cached.get_text_embedding_batch(texts)
    assert len({tuple(np.round(vector, 4)) for vector in first}) == 4
    assert_close(await cached.aget_text_embedding_batch(texts), first)


# -- Milvus and the reranker ------------------------------------------------------------------------


@pytest.mark.usefixtures("no_llm")
async def test_composed_query_through_milvus_and_the_reranker(
    lens: MagicLensEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(tmp_path / "m.db", lens)
    nodes = load_image_nodes(pictures[0].parent)
    IngestionPipeline(transformations=[lens], vector_store=store).run(nodes=nodes)
    index = VectorStoreIndex.from_vector_store(store, embed_model=lens)
    query = ImageTextQuery("the same, but at night", image_path=str(pictures[2]))
    hits = index.as_retriever(similarity_top_k=6).retrieve(query)
    # what the dot product with the model's own vectors says
    gallery = lens.encode([ImageText("", path) for path in pictures])
    scores = gallery @ lens.encode([ImageText(query.query_str, pictures[2])])[0]
    assert [hit.node.image_path for hit in hits] == [str(pictures[i]) for i in np.argsort(-scores)]
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1], atol=1e-4)
    later = await index.as_retriever(similarity_top_k=6).aretrieve(
        ImageTextQuery("the same, but at night", image_path=str(pictures[2]))
    )
    assert [hit.node.node_id for hit in later] == [hit.node.node_id for hit in hits]

    engine = index.as_query_engine(
        similarity_top_k=6,
        response_mode="no_text",
        node_postprocessors=[Phi3VisionRerank(model=TextModel(), top_n=3)],
    )
    response = engine.query(ImageTextQuery("the same, but at night", image_path=str(pictures[2])))
    kept = [hit.node.image_path for hit in response.source_nodes]
    assert len(set(kept)) == 3
    assert set(kept) <= {str(path) for path in pictures}
    assert all("rerank_rank" in hit.node.metadata for hit in response.source_nodes)
    with pytest.raises(ValueError, match="embeds no text alone"):
        engine.query("a mug")


def test_a_collection_of_another_model_is_refused(
    lens: MagicLensEmbedding, embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    for first, second in ((lens, embed_model), (embed_model, lens)):
        place = tmp_path / f"{first.class_name()}.db"
        milvus_store(place, first).client.close()
        with pytest.raises(EmbeddingMismatchError) as caught:
            milvus_store(place, second)
        assert first.fingerprint["model"] in str(caught.value)
        assert second.fingerprint["model"] in str(caught.value)
        milvus_store(place, first).client.close()


# -- life of the object --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "twin",
    [
        lambda model: MagicLensEmbedding.from_dict(model.to_dict()),
        lambda model: MagicLensEmbedding.from_json(model.to_json()),
        lambda model: pickle.loads(pickle.dumps(model)),
        copy.deepcopy,
        copy.copy,
    ],
)
def test_twins_embed_the_same(
    checkpoint: Path, twin: Callable[[MagicLensEmbedding], MagicLensEmbedding], pictures: list[Path]
) -> None:
    model = MagicLensEmbedding(model_name=str(checkpoint), device="cpu", embed_batch_size=7)
    vector = model.get_image_embedding(pictures[0])
    other = twin(model)
    assert other.embed_batch_size == 7
    assert_close(other.get_image_embedding(pictures[0]), vector)
    assert len(pickle.dumps(model)) < 5000


def test_loads_once_under_threads(checkpoint: Path, pictures: list[Path]) -> None:
    loads: list[Any] = []

    class Counting(MagicLensEmbedding):
        def _load(self) -> Any:
            loads.append(super()._load())
            return loads[-1]

    model = Counting(model_name=str(checkpoint), device="cpu")
    threads = [threading.Thread(target=model.get_image_embedding, args=(pictures[i % 6],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_without_weights_the_error_says_where_they_are(tmp_path: Path, pictures: list[Path]) -> None:
    model = MagicLensEmbedding(cache_folder=str(tmp_path))
    with pytest.raises(OSError, match=r"gs://gresearch/magiclens/models/magic_lens_clip_base\.pkl"):
        model.get_image_embedding(pictures[0])


def test_serialised_under_its_name() -> None:
    fields = MagicLensEmbedding(model_name="m").to_dict()
    assert fields["class_name"] == "MagicLensEmbedding"
    assert MagicLensEmbedding().model_name == "magiclens-base"
    assert fields.keys() == VisualizedBGEEmbedding().to_dict().keys()


def test_importing_it_loads_no_torch(tmp_path: Path) -> None:
    program = """
import sys
from llama_index_multimodal_rerank import MagicLensEmbedding
MagicLensEmbedding(model_name="m")
assert not {"torch", "transformers", "ftfy"} & set(sys.modules), sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr


def test_the_example_runs() -> None:
    found = doctest.testmod(magiclens)
    assert found.attempted >= 12
    assert found.failed == 0
