"""Slices that LlamaIndex asks for one after the other are encoded one ahead, each once, in order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from llama_index_multimodal_rerank import ImageText, VisualizedBGEEmbedding
from llama_index_multimodal_rerank.embeddings.slices import encode_ahead, take_slice


def texts(count: int) -> list[str]:
    return [f"text {i}" for i in range(count)]


def test_the_next_slice_is_encoded_before_it_is_asked_for() -> None:
    started = [threading.Event() for _ in range(3)]

    def encode(own: Sequence[str]) -> str:
        started[int(own[0][-1]) // 2].set()
        return " ".join(own)

    given = texts(5)
    with encode_ahead(encode, given, slice_size=2) as encoded:
        asked = iter(encoded)
        assert [next(asked), next(asked)] == given[:2]
        assert take_slice(given[:2]) == "text 0 text 1"
        assert started[1].wait(10)  # nobody asked for it yet
        assert not started[2].wait(0.05)  # one ahead, no more
        assert take_slice(given[2:4]) is None  # not looked through
        assert list(asked) == given[2:]
        assert take_slice(given[2:4]) == "text 2 text 3"
        assert take_slice(given[4:]) == "text 4"
        assert take_slice(given[4:]) is None  # once
        assert take_slice(given[1:3]) is None  # none of the slices
    assert take_slice(given[:2]) is None  # and not outside


def test_texts_are_finished_once_their_slice_is_encoded() -> None:
    read: list[str] = []
    given = texts(3)
    with encode_ahead(read.extend, given, slice_size=2, finish=lambda text: f"{text} {len(read)}") as encoded:
        assert list(encoded) == ["text 0 2", "text 1 2", "text 2 3"]
        assert len(encoded) == 3


def test_errors_come_at_their_slice() -> None:
    def encode(own: Sequence[str]) -> int:
        if "text 2" in own:
            raise ValueError("text 2 is odd")
        return len(own)

    given = texts(4)
    with encode_ahead(encode, given, slice_size=2) as encoded:
        asked = iter(encoded)
        assert [next(asked), next(asked)] == given[:2]
        assert take_slice(given[:2]) == 2
        with pytest.raises(ValueError, match="text 2 is odd"):
            next(asked)


def test_llama_index_takes_the_slices_that_were_encoded_ahead(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors are those of one call for all; every item is encoded once, in another thread."""
    items = [*texts(3), *(ImageText("", path) for path in pictures), "the same", "the same"]
    model = embed_model.model_copy(update={"embed_batch_size": 2})
    expected = embed_model.encode(items)
    encoded: list[tuple[int, bool]] = []
    encode = VisualizedBGEEmbedding.encode

    def record(self: VisualizedBGEEmbedding, own: Sequence[str]) -> np.ndarray:
        encoded.append((len(own), threading.current_thread() is threading.main_thread()))
        return encode(self, own)

    monkeypatch.setattr(VisualizedBGEEmbedding, "encode", record)
    vectors = model.get_text_embedding_batch(items)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
    assert encoded == [(2, False)] * 5 + [(1, False)]
