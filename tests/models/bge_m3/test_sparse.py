"""The native model: order, batches, memory, threads, and what cannot be weights."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bge_m3_golden import read_json

from llama_index_multimodal_rerank.models.bge_m3.sparse import BGEM3SparseModel

TEXTS: list[str] = read_json("cases.json")["texts"]


@pytest.fixture
def model(seeded_m3: Path) -> BGEM3SparseModel:
    return BGEM3SparseModel.from_folder(seeded_m3, device="cpu")


def close(expected: list[dict[int, float]]) -> list[Any]:
    return [pytest.approx(weights, abs=1e-5) for weights in expected]


def test_weights_follow_the_order_of_the_texts(model: BGEM3SparseModel) -> None:
    one_by_one = [model.lexical_weights([text])[0] for text in TEXTS]
    order = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    shuffled = model.lexical_weights([TEXTS[i] for i in order], batch_size=4)
    assert shuffled == close([one_by_one[i] for i in order])


def test_no_text_no_weights(model: BGEM3SparseModel) -> None:
    assert model.lexical_weights([]) == []
    assert model.lexical_weights(["", "a red mug", " "])[::2] == [{}, {}]


def batches_seen(model: BGEM3SparseModel) -> list[tuple[int, int]]:
    shapes: list[tuple[int, int]] = []
    model._encoder.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


def test_batches_are_longest_first_and_bounded_in_tokens(model: BGEM3SparseModel) -> None:
    shapes = batches_seen(model)
    model.lexical_weights(["x", "a " * 1022, "x x", "a " * 1022, "x x x"], batch_size=2)
    assert shapes[:2] == [(1, 1024), (1, 1024)]  # batch_size counts texts of up to 512 tokens
    assert [rows for rows, _ in shapes[2:]] == [2, 1]


def test_texts_are_cut_off_at_max_length(model: BGEM3SparseModel) -> None:
    shapes = batches_seen(model)
    model.lexical_weights(TEXTS, max_length=7)
    assert max(tokens for _, tokens in shapes) == 7


def out_of_memory(rows: int) -> Callable[..., None]:
    """As a device that has no room for more than these rows."""

    def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return hook


def test_a_batch_that_does_not_fit_into_memory_is_halved(model: BGEM3SparseModel) -> None:
    expected = model.lexical_weights(TEXTS)
    model._encoder.register_forward_pre_hook(out_of_memory(rows=3), with_kwargs=True)
    shapes = batches_seen(model)
    assert model.lexical_weights(TEXTS) == close(expected)
    assert max(rows for rows, _ in shapes) <= 3


def test_a_text_that_does_not_fit_alone_is_an_error(model: BGEM3SparseModel) -> None:
    model._encoder.register_forward_pre_hook(out_of_memory(rows=0), with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError):
        model.lexical_weights(TEXTS)


def test_threads_share_a_model(model: BGEM3SparseModel) -> None:
    def encode(max_length: int) -> list[dict[int, float]]:
        return model.lexical_weights(TEXTS, max_length=max_length)

    lengths = [5, 9, 30, 8192] * 4
    expected = [encode(length) for length in lengths]
    with ThreadPoolExecutor(8) as pool:
        for computed, wanted in zip(pool.map(encode, lengths), expected, strict=True):
            assert computed == close(wanted)


def test_numbers_that_are_not_finite_are_an_error(model: BGEM3SparseModel) -> None:
    # max(0, nan) would be no weight at all, and the text would never be found
    with torch.no_grad():
        model._encoder.get_input_embeddings().weight[9] = torch.nan
    with pytest.raises(ValueError, match=r"not finite for a text of 7 tokens.*use_fp16=False"):
        model.lexical_weights(["a red mug"])


def test_an_impossible_device_is_named(seeded_m3: Path) -> None:
    with pytest.raises(ValueError, match="device='abacus' cannot be used"):
        BGEM3SparseModel.from_folder(seeded_m3, device="abacus")


def test_half_precision_on_a_cpu_computes_in_float32(seeded_m3: Path) -> None:
    model = BGEM3SparseModel.from_folder(seeded_m3, device="cpu", use_fp16=True)
    assert {parameter.dtype for parameter in model._encoder.parameters()} == {torch.float32}
    assert model._sparse_linear.weight.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("use_fp16", "tolerance"), [(False, 1e-3), (True, 0.05)])
def test_a_gpu_gives_the_same(
    model: BGEM3SparseModel, seeded_m3: Path, use_fp16: bool, tolerance: float
) -> None:
    on_gpu = BGEM3SparseModel.from_folder(seeded_m3, use_fp16=use_fp16)
    assert on_gpu._encoder.device.type == "cuda"
    assert on_gpu._encoder.dtype == (torch.float16 if use_fp16 else torch.float32)
    for weights, expected in zip(on_gpu.lexical_weights(TEXTS), model.lexical_weights(TEXTS), strict=True):
        for token in weights.keys() | expected.keys():
            assert weights.get(token, 0.0) == pytest.approx(expected.get(token, 0.0), abs=tolerance)


SCRIPT = """
import ast, sys, warnings
from pathlib import Path
from transformers.utils import logging
from llama_index_multimodal_rerank.models.bge_m3.sparse import BGEM3SparseModel

logging.disable_progress_bar()  # transformers' own, while it reads the weights
print("imported", flush=True)
print("imported", file=sys.stderr, flush=True)
with warnings.catch_warnings():  # not those of libraries when Python ends
    warnings.simplefilter("error")
    model = BGEM3SparseModel.from_folder(Path(sys.argv[1]), device="cpu")
    model.lexical_weights(ast.literal_eval(sys.argv[2]))
"""


def test_nothing_is_said_on_the_screen(seeded_m3: Path) -> None:
    """On a screen of its own: servers that other tests left open write to this process's at any time."""
    arguments = [str(seeded_m3), repr(TEXTS * 5)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for said in (done.stdout, done.stderr):
        assert said.partition("imported\n")[2] == ""
