"""Batches, threads and bfloat16 give the vectors of the plain way: one item, one forward pass, in float32."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from PIL import Image

from llama_index_multimodal_rerank import ImageText, VisualizedBGEEmbedding, load_image_nodes
from llama_index_multimodal_rerank.images import access, files
from llama_index_multimodal_rerank.models.pixels import CLIP_MEAN, CLIP_STD

TEXTS = (
    "turtle",
    "a red striped jacket with two pockets",
    "make it blue",
    "the cat sleeps under the old tree",
)


def plainly(embed_model: VisualizedBGEEmbedding, text: str, path: Path | None) -> np.ndarray:
    """Tokenize, decode, resize, normalise and run the module, with nothing of the package in between."""
    bge = embed_model.model
    encoded = bge.tokenizer.tokenizer(text, return_tensors="pt")
    pixels = None
    if path is not None:  # pictures are 64 x 48: the shorter side to 224, then the middle
        resized = Image.open(path).resize((224 * 64 // 48, 224), Image.Resampling.BICUBIC)
        left = round((resized.width - 224) / 2)
        crop = np.asarray(resized.crop((left, 0, left + 224, 224)).convert("RGB"), dtype=np.float32) / 255
        crop = (crop - np.asarray(CLIP_MEAN, np.float32)) / np.asarray(CLIP_STD, np.float32)
        pixels = torch.from_numpy(crop.transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        vector = bge.model(encoded["input_ids"], encoded["attention_mask"], pixels)[0].numpy()
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path | None]]:
    """Five pictures, five texts, and five pictures with a text, mixed as a user may mix them."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("mixed")
    mixed: list[tuple[str, Path | None]] = []
    for i in range(5):
        path = folder / f"{i}.jpg"
        blobs = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        blobs.resize((64, 48), Image.Resampling.BICUBIC).save(path)
        text = TEXTS[i % len(TEXTS)]
        mixed += [("", path), (f"{text} {i}", None), (text, path)]
    return [mixed[i] for i in rng.permutation(len(mixed))]


def assert_as_plain(
    fast: VisualizedBGEEmbedding,
    embed_model: VisualizedBGEEmbedding,
    contents: list[tuple[str, Path | None]],
    least: float,
) -> None:
    vectors = np.asarray(
        fast.get_text_embedding_batch(
            [text if path is None else ImageText(text, path) for text, path in contents]
        )
    )

    plain = np.stack([plainly(embed_model, text, path) for text, path in contents])
    similarity = vectors @ plain.T
    assert similarity.diagonal().min() >= least
    # Of all items each is nearest to itself: vectors of other items would not pass for its own.
    assert (similarity.argmax(axis=1) == np.arange(len(contents))).all()


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999), ("bfloat16", 0.995)])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_vectors_are_those_of_the_plain_way(
    tiny_checkpoint: Path,
    embed_model: VisualizedBGEEmbedding,
    contents: list[tuple[str, Path | None]],
    dtype: str,
    least: float,
    batch_size: int,
) -> None:
    fast = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype=dtype, embed_batch_size=batch_size
    )
    assert_as_plain(fast, embed_model, contents, least)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_so_are_those_of_compiled_layers(
    tiny_checkpoint: Path, embed_model: VisualizedBGEEmbedding, contents: list[tuple[str, Path | None]]
) -> None:
    fast = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=4, torch_compile=True
    )
    compiled = torch._dynamo.utils.counters["stats"]
    before = compiled["unique_graphs"]
    assert_as_plain(fast, embed_model, contents, least=0.999)
    assert compiled["unique_graphs"] >= before + 2  # a layer of either encoder


@pytest.mark.parametrize("given", [{}, {"embed_batch_size": 256}, {"embed_batch_size": 5}])
def test_batches_follow_the_device_unless_a_size_is_given(
    tiny_checkpoint: Path,
    contents: list[tuple[str, Path | None]],
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, int],
) -> None:
    model = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", dtype="float32", **given)
    batches: list[int] = []
    forward = model.model.model.forward
    monkeypatch.setattr(
        model.model.model, "forward", lambda ids, *rest: batches.append(len(ids)) or forward(ids, *rest)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    pictures = [ImageText("", path) for _, path in contents if path is not None] * 2  # 20 of them
    model.get_text_embedding_batch([*pictures, *(f"text {i}" for i in range(40))])
    if given == {"embed_batch_size": 5}:
        assert batches == [5] * 12
    else:  # 8 pictures a thread, 32 texts
        assert batches == [8, 8, 4, 32, 8]
    # The choice outlives serialisation, which writes every field.
    copy = VisualizedBGEEmbedding.from_dict(model.to_dict())
    assert (
        copy._model_batch_size
        == model._model_batch_size
        == (5 if given.get("embed_batch_size") == 5 else None)
    )


def test_every_file_is_read_in_full_once_to_check_it_and_once_to_embed_it(
    tiny_checkpoint: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, digest and decoding in one visit, both times; nodes keep no pixels in between."""
    visits: Counter[Path] = Counter()
    read_file = access.read_file

    def count(path: Path, *arguments: Any, **options: Any) -> bytes:
        visits[path] += 1
        return read_file(path, *arguments, **options)

    monkeypatch.setattr(access, "read_file", count)
    nodes = load_image_nodes(pictures[0].parent)
    assert visits == dict.fromkeys(pictures, 1)
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=2
    )
    IngestionPipeline(transformations=[model], disable_cache=True).run(nodes=nodes)
    assert visits == dict.fromkeys(pictures, 2)


@pytest.mark.parametrize("size", [2, 64])
def test_a_file_without_a_node_is_opened_once_and_its_digest_is_that_of_the_bytes_embedded(
    tiny_checkpoint: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """No visit to see whether it is there, none for the digest; events carry it all the same."""
    opened: Counter[str] = Counter()
    open_file = files._open_file

    def count(path: str, *arguments: Any) -> int:
        opened[path] += 1
        return open_file(path, *arguments)

    monkeypatch.setattr(files, "_open_file", count)
    debug = LlamaDebugHandler(print_trace_on_end=False)
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint),
        device="cpu",
        dtype="float32",
        embed_batch_size=size,
        callback_manager=CallbackManager([debug]),
    )
    texts = [ImageText("", path) for path in pictures]
    model.get_text_embedding_batch(texts)
    assert opened == {str(path): 1 for path in pictures}
    chunks = [
        chunk
        for _, end in debug.get_event_pairs(CBEventType.EMBEDDING)
        for chunk in end.payload[EventPayload.CHUNKS]
    ]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures]
    assert chunks == [f"[image_digest: sha256:{digest}]" for digest in digests]
    # The caller's texts know nothing of it: their files may change before they are embedded again.
    assert [text.expected_digest for text in texts] == [None] * len(texts)
    opened.clear()
    nodes = load_image_nodes(pictures[0].parent)
    IngestionPipeline(transformations=[model], disable_cache=True).run(nodes=nodes)
    assert opened == {str(path): 2 for path in pictures}  # to check, and to embed


def test_a_file_that_changes_between_two_calls_is_embedded_as_it_is(
    tiny_checkpoint: Path, pictures: list[Path]
) -> None:
    model = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", dtype="float32")
    text = ImageText("", pictures[0])
    (before,) = model.get_text_embedding_batch([text])
    shutil.copyfile(pictures[1], pictures[0])
    (after,) = model.get_text_embedding_batch([text])
    np.testing.assert_allclose(after, model.get_image_embedding(pictures[1]), rtol=0, atol=1e-6)
    assert np.abs(np.subtract(after, before)).max() > 1e-3
