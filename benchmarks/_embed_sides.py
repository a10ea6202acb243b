"""The sides that benchmarks of embedding compare, one item at a time and the bare module, and their items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from llama_index_multimodal_rerank.models.batching import best_batch_sizes

from ._common import flops_of
from ._embedders import Content, Embedder

MODEL_BATCHES = 16

Vectors: TypeAlias = npt.NDArray[np.float32]


class OneByOne:
    """The baseline: tokenize, decode, preprocess, run the module on one item, and again for the next.

    Args:
        embedder: the model.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def __call__(self, contents: Sequence[Content]) -> Vectors:
        """Embed items, normalised."""
        vectors = []
        with torch.inference_mode():
            for content in contents:
                vector = self.embedder.module(*self.embedder.inputs([content])).float()
                vectors.append(torch.nn.functional.normalize(vector, dim=-1).cpu().numpy())
        return np.concatenate(vectors)


def make_texts(embedder: Embedder, count: int) -> list[str]:
    """Make texts of 3 to 24 words that the tokenizer knows."""
    vocabulary = {word.removesuffix("</w>") for word in embedder.tokenizer.tokenizer.get_vocab()}
    words = sorted(word for word in vocabulary if word.isalpha() and len(word) > 2)
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, length)) for length in rng.integers(3, 25, count)]


def count_flops(embedder: Embedder, contents: Sequence[Content]) -> int:
    """Count what the model has to do for the items, without padding; equal shapes are counted once."""
    by_shape: dict[tuple[int, bool], int] = {}
    total = 0
    with torch.no_grad():
        for text, path in contents:
            shape = len(embedder.tokenizer([text])[0]), path is not None
            if shape not in by_shape:
                inputs = embedder.inputs([(text, path)])
                by_shape[shape] = flops_of(lambda inputs=inputs: embedder.module(*inputs))  # type: ignore[misc]
            total += by_shape[shape]
    return total


class BareModel:
    """The module alone, on items that are prepared, batched and on the device already.

    Args:
        embedder: the model.
        contents: the items, all of one kind; batches are taken from them while there are not more than 16.
        batch_size: items of a batch; None: what the encoder takes by itself.
    """

    def __init__(self, embedder: Embedder, contents: Sequence[Content], batch_size: int | None) -> None:
        if batch_size is None:
            sizes = best_batch_sizes(embedder.encoder.device.type, torch.get_num_threads())
            batch_size = sizes.texts if contents[0][1] is None else sizes.images
        self.model = embedder.module
        contents = contents[: MODEL_BATCHES * batch_size]
        self.items = len(contents)
        ids = embedder.tokenizer([text for text, _ in contents])
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        self.batches = [
            embedder.inputs([contents[i] for i in order[start : start + batch_size]])
            for start in range(0, len(order), batch_size)
        ]

    def __call__(self) -> None:
        """Run all batches."""
        with torch.inference_mode():
            for batch in self.batches:
                self.model(*batch)

    def run_one(self) -> None:
        """Run the first batch."""
        with torch.inference_mode():
            self.model(*self.batches[0])
