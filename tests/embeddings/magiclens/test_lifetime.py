"""MagicLensEmbedding as an object: copied, serialised, loaded once and late, imported without torch."""

from __future__ import annotations

import copy
import doctest
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.magiclens_golden import assert_close

from llama_index_multimodal_rerank import (
    MagicLensEmbedding,
    VisualizedBGEEmbedding,
)
from llama_index_multimodal_rerank.embeddings import magiclens


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
