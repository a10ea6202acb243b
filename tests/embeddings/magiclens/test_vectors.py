"""MagicLensEmbedding gives the golden vectors, one by one, in batches, and from a cache."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
from llama_index.core.storage.kvstore import SimpleKVStore
from support import magiclens_golden
from support.drawing import draw_picture
from support.magiclens_golden import IMAGES, TINY, assert_close

from llama_index_multimodal_rerank import (
    ImageText,
    MagicLensEmbedding,
)


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


async def test_cache_keeps_pictures_and_pairs_apart(checkpoint: Path, pictures: list[Path]) -> None:
    cached = MagicLensEmbedding(
        model_name=str(checkpoint), device="cpu", dtype="float32", embeddings_cache=SimpleKVStore()
    )
    texts: list[str] = [ImageText(words, path) for words in ("", "red") for path in pictures[:2]]
    first = cached.get_text_embedding_batch(texts)
    assert len({tuple(np.round(vector, 4)) for vector in first}) == 4
    assert_close(await cached.aget_text_embedding_batch(texts), first)
