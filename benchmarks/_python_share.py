"""What python does for an item outside of decoding and the model: the time for which it holds the GIL.

Decoders, resizing, and the model run without the GIL, on all cores and on the device. What is left is done by
one thread at a time, however many cores there are, so that it bounds the rate. It is measured as the CPU time
of the whole way, while decoders, resizing and a double of the model answer at once. Digests, which release
the GIL, are measured alone and taken off; reading a file is left in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from llama_index.core.ingestion import IngestionPipeline
from PIL import Image

from llama_index_multimodal_rerank import load_image_nodes, milvus_store
from llama_index_multimodal_rerank.embeddings.image_text_embedding import ImageTextEmbedding
from llama_index_multimodal_rerank.images.sources import bytes_digest
from llama_index_multimodal_rerank.models.image_text_encoder import ImageTextEncoder

from ._databases import temporary_databases

REPEATS = 3


class _DecodedAtOnce:
    """Stands in for Pillow's decoders: says that all is done."""

    handles_eof = pulls_fd = False

    def setimage(self, *_: Any) -> None:
        pass

    def decode(self, _: bytes) -> tuple[int, int]:
        return -1, 0

    def cleanup(self) -> None:
        pass


@contextmanager
def without_decoding() -> Iterator[None]:
    """Have Pillow open files as ever, and decode and resize them in no time, to black pictures."""
    resized: dict[tuple[str, tuple[int, int]], Image.Image] = {}

    def resize(image: Image.Image, size: tuple[int, int], *_: Any, **__: Any) -> Image.Image:
        key = image.mode, (size[0], size[1])
        if key not in resized:
            resized[key] = Image.new(*key)
        return resized[key]

    with (
        patch.object(Image, "_getdecoder", lambda *_: _DecodedAtOnce()),
        patch.object(Image.Image, "resize", resize),
    ):
        yield


@contextmanager
def without_model(encoder: Any) -> Iterator[None]:
    """Have an encoder answer at once; batches are padded and stacked as ever."""
    vectors = torch.full((2048, encoder.dim), encoder.dim**-0.5)

    def forward(_: Any, ids: Sequence[Any], images: Sequence[Any], normalize: bool) -> torch.Tensor:
        encoder.tokenizer.pad(ids)
        if images:
            encoder._stack(images)
        return vectors[: len(ids)]

    with patch.object(ImageTextEncoder, "_forward", forward):
        yield


def python_per_item(
    ours: ImageTextEmbedding, kinds: dict[str, list[str]], files: Sequence[Path]
) -> dict[str, dict[str, float]]:
    """Measure every kind of text, and each stage on the way into Milvus Lite.

    Args:
        ours: the embedding, its model loaded.
        kinds: texts by their kind.
        files: pictures.

    Returns:
        By kind and stage, ``microseconds`` an item and the rate that they allow, ``per_s``.
    """
    digest = _digest_seconds(files)
    found: dict[str, float] = {}
    with without_decoding(), without_model(ours.model), temporary_databases() as database:
        for kind, texts in kinds.items():
            seconds = _cpu_seconds(lambda texts=texts: ours.get_text_embedding_batch(texts))  # type: ignore[misc]
            found[kind] = seconds / len(texts) - (0 if kind == "text" else digest)
        found["load_nodes"] = _cpu_seconds(lambda: load_image_nodes(files)) / len(files) - digest
        nodes = load_image_nodes(files)
        pipeline = IngestionPipeline(transformations=[ours], disable_cache=True)
        found["embed_nodes"] = _cpu_seconds(lambda: pipeline.run(nodes=nodes)) / len(files) - digest
        store = milvus_store(database / "pictures.db", ours)
        found["insert"] = _cpu_seconds(lambda: store.add(nodes), repeats=1) / len(files)
        store.client.close()
    return {name: {"microseconds": each * 1e6, "per_s": 1 / each} for name, each in found.items()}


def _cpu_seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the least CPU time of all threads of this process."""
    least = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        call()
        least = min(least, time.process_time() - started)
    return least


def _digest_seconds(files: Sequence[Path]) -> float:
    contents = [path.read_bytes() for path in files[:64]]
    return _cpu_seconds(lambda: [bytes_digest(data) for data in contents]) / len(contents)
