"""The public face: any mixture of items, in order, from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.drawing import draw_picture
from support.visualized_bge_golden import (
    IMAGES,
    SAME,
    TINY,
    TINY_BERT,
    TINY_XLMR,
    case_of,
    config,
    golden,
    write_folder,
)

from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE

TEXTS = ("turtle", "A red striped jacket with two pockets.", "O papagaio verde está debaixo da árvore.")
PICTURES = [((300, 260), "RGB"), ((250, 310), "L"), ((7, 5), "RGB")]


def opener(number: int) -> Callable[[], Image.Image]:
    size, mode = PICTURES[number]
    return lambda: draw_picture(number, size).convert(mode)


def every_kind() -> list[Any]:
    """Texts, pictures and pairs; each item tells by its position what it must give."""
    images = [opener(number) for number in range(len(PICTURES))]
    return [*TEXTS, *images, *((text, image) for text in TEXTS for image in images), ("", images[0])]


@pytest.fixture(scope="module", params=TINY)
def bge(request: pytest.FixtureRequest, load: Callable[[str], VisualizedBGE]) -> VisualizedBGE:
    return load(request.param)


@pytest.fixture(scope="module")
def one_by_one(bge: VisualizedBGE) -> np.ndarray:
    return np.concatenate([bge.encode([item]) for item in every_kind()])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batched_equals_one_by_one(bge: VisualizedBGE, one_by_one: np.ndarray, batch_size: int) -> None:
    embeddings = bge.encode(every_kind(), batch_size=batch_size)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, one_by_one, rtol=0, atol=SAME)
    distances = np.linalg.norm(one_by_one[:, None] - one_by_one[None], axis=-1)
    same = {(3, len(one_by_one) - 1)}  # a picture alone is a picture with the empty text
    for i, j in np.argwhere(np.triu(np.ones_like(distances), 1)):
        assert (distances[i, j] < SAME * bge.dim**0.5) == ((i, j) in same), (i, j)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, 15), max_size=12), batch_size=st.integers(1, 6))
def test_any_mixture_in_any_order(
    bge: VisualizedBGE, one_by_one: np.ndarray, order: list[int], batch_size: int
) -> None:
    items = every_kind()
    embeddings = bge.encode([items[i] for i in order], batch_size=batch_size)
    assert embeddings.shape == (len(order), bge.dim)
    np.testing.assert_allclose(embeddings, one_by_one[order], rtol=0, atol=SAME)


def test_batches_hold_one_kind_and_least_padding(
    tiny: VisualizedBGE, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[tuple[int, ...], bool]] = []
    forward = tiny.model.forward

    def record(ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor | None) -> torch.Tensor:
        calls.append((tuple(ids.shape), pixels is not None))
        return forward(ids, mask, pixels)

    monkeypatch.setattr(tiny.model, "forward", record)
    image = opener(0)
    long, short = "the red cat sleeps under the old tree", "cat"
    tiny.encode([short, (long, image), long, image, short, (long, image), image], batch_size=2)
    assert [has_image for _, has_image in calls] == [True, True, False, False]
    (pair, _), (alone, _), (first, _), (last, _) = calls
    assert (alone, pair[0]) == ((2, len(tiny.tokenizer([""])[0])), 2)
    assert first[0] == 2
    assert last == (1, len(tiny.tokenizer([short])[0]))
    assert first[1] == pair[1] == len(tiny.tokenizer([long])[0])


def test_pil_images_and_functions_are_the_same(tiny: VisualizedBGE) -> None:
    case = case_of(TINY_BERT, "image")
    image = Image.open(IMAGES / case["images"][0])
    embeddings = tiny.encode([image, lambda: image, ("", image), image])
    expected = golden(TINY_BERT)[f"{case['id']}/embedding"][0]
    np.testing.assert_allclose(embeddings, np.tile(expected, (4, 1)), rtol=0, atol=5e-6)


def test_preprocessed_pictures_embed_the_same(tiny: VisualizedBGE) -> None:
    image = opener(0)()
    crop = tiny.preprocess(image)
    side = tiny.model.config.vision.image_size
    assert (crop.dtype, crop.shape) == (np.uint8, (side, side, 3))
    embeddings = tiny.encode([image, crop, ("turn", crop), ("turn", image), "a", crop], batch_size=2)
    np.testing.assert_allclose(embeddings[[1, 5]], embeddings[[0, 0]], atol=1e-6)
    np.testing.assert_allclose(embeddings[2], embeddings[3], atol=1e-6)


@pytest.mark.parametrize("array", [np.zeros((8, 8, 3), np.uint8), np.zeros((224, 224, 3), np.float32)])
def test_other_arrays_are_refused(tiny: VisualizedBGE, array: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"items\[1\] has an array of .*expected what preprocess\(\) returns"
    ):
        tiny.encode(["a", ("b", array)])


def test_empty_list(tiny: VisualizedBGE) -> None:
    embeddings = tiny.encode([])
    assert embeddings.shape == (0, tiny.dim)
    assert embeddings.dtype == np.float32


def test_length_one_only_where_asked(tiny: VisualizedBGE) -> None:
    items = every_kind()
    raw, unit = tiny.encode(items, normalize=False), tiny.encode(items)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(unit, raw / lengths, rtol=0, atol=1e-6)


def test_empty_text_is_refused_before_anything_runs(tiny: VisualizedBGE) -> None:
    called: list[int] = []

    def load() -> Image.Image:
        called.append(1)
        return Image.new("RGB", (9, 9))

    with pytest.raises(ValueError, match=r"items\[1\] is an empty text without an image"):
        tiny.encode([load, ""])
    # zero-width characters: something for str.strip, nothing for the tokenizer
    with pytest.raises(ValueError, match=r"items\[2\] is a text without an image, and the tokenizer reads"):
        tiny.encode([load, "fine", "\u200b"])
    with pytest.raises(TypeError, match=r"items\[1\] is a float"):
        tiny.encode([load, 1.5])  # type: ignore[list-item]
    assert not called


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_is_positive(tiny: VisualizedBGE, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size} must be at least 1"):
        tiny.encode(["a"], batch_size=batch_size)


@pytest.mark.parametrize("error", [OSError("disk gone"), KeyError("k"), StopAsyncIteration()])
def test_what_a_function_raises_is_raised_unchanged(tiny: VisualizedBGE, error: Exception) -> None:
    def fail() -> Image.Image:
        raise error

    with pytest.raises(type(error)) as caught:
        tiny.encode([opener(0), fail, "text"])
    assert caught.value is error
    tiny.encode(["still works"])


def test_function_that_returns_no_image(tiny: VisualizedBGE) -> None:
    with pytest.raises(TypeError, match=r"function of items\[1\] returned a str; expected a PIL image"):
        tiny.encode(["a", lambda: "image.png"])  # type: ignore[list-item, return-value]


def test_functions_run_in_threads_ahead_of_the_model_but_bounded(
    tiny: VisualizedBGE, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, done, ahead = [0], [0], []
    lock = threading.Lock()
    here = threading.get_ident()

    def load() -> Image.Image:
        assert threading.get_ident() != here
        with lock:
            loaded[0] += 1
        return Image.new("RGB", (32, 32))

    forward = tiny.model.forward

    def record(ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor | None) -> torch.Tensor:
        ahead.append(loaded[0] - done[0])
        done[0] += len(ids)
        return forward(ids, mask, pixels)

    monkeypatch.setattr(tiny.model, "forward", record)
    tiny.encode([load] * 60, batch_size=4)
    assert done == loaded == [60]
    # the batch that runs, two more, and one handed over
    assert max(ahead) <= 4 + 2 * 4 + 1
    assert max(ahead) > 4  # and it did run ahead


def test_eight_threads_share_one_model(bge: VisualizedBGE, one_by_one: np.ndarray) -> None:
    items = every_kind()

    def work(seed: int) -> float:
        order = np.random.default_rng(seed).permutation(len(items))
        embeddings = bge.encode([items[i] for i in order], batch_size=1 + seed % 5)
        return float(np.abs(embeddings - one_by_one[order]).max())

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(16))) <= SAME


def test_long_texts_are_cut_with_a_warning(tiny: VisualizedBGE, caplog: pytest.LogCaptureFixture) -> None:
    limits = config(TINY_BERT).text.max_tokens, config(TINY_BERT).max_tokens_with_image
    assert (tiny.max_text_tokens, tiny.max_text_tokens_with_image) == limits
    assert tiny.image_tokens == config(TINY_BERT).vision.num_patches
    longest = tiny.max_text_tokens_with_image
    over, fits = "." * (longest - 1), "." * (longest - 2)  # a token each, and two special ones
    assert [len(ids) for ids in tiny.tokenizer([over, fits])] == [longest + 1, longest]
    with caplog.at_level(logging.WARNING):
        tiny.encode(["short", (over, opener(0))])
    assert "1 of 2 texts were cut" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        tiny.encode([(fits, opener(0))])
    assert not caplog.text


def test_limits_of_xlm_roberta(load: Callable[[str], VisualizedBGE]) -> None:
    bge = load(TINY_XLMR)
    text = config(TINY_XLMR).text
    # positions start behind the padding row, where a text is alone
    assert bge.max_text_tokens == text.max_position_embeddings - text.pad_token_id - 1
    assert bge.max_text_tokens_with_image == text.max_position_embeddings - bge.image_tokens
    long = "cat " * (text.max_position_embeddings + 100)
    embeddings = bge.encode([long, (long, opener(0))])
    assert np.isfinite(embeddings).all()


def test_not_finite_is_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, TINY_BERT)
    bge = VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")
    word = int(bge.tokenizer(["?"])[0][1])
    bge.model.text.embeddings.word_embeddings.weight[word] = float("nan")
    assert np.isfinite(bge.encode(["a red cat"])).all()
    with pytest.raises(FloatingPointError, match=r"items\[1\] is not finite in torch\.float32"):
        bge.encode(["a red cat", "?"])


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "float16", "torch.float16", torch.float32])
def test_dtype_is_settable(model_folder: Callable[[str], Path], dtype: Any, tiny: VisualizedBGE) -> None:
    bge = VisualizedBGE.from_pretrained(model_folder(TINY_BERT), device="cpu", dtype=dtype)
    assert str(bge.dtype).removeprefix("torch.") == str(dtype).removeprefix("torch.")
    items = every_kind()
    embeddings, expected = bge.encode(items), tiny.encode(items)
    assert embeddings.dtype == np.float32
    assert (embeddings * expected).sum(axis=1).min() >= 0.995


def test_properties(bge: VisualizedBGE) -> None:
    assert bge.dim == bge.model.config.text.hidden_size == config(bge.model.config.name).text.hidden_size
    assert bge.device == torch.device("cpu")
    assert bge.dtype == torch.float32


def test_progress_bar(tiny: VisualizedBGE, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.encode(["a", "b", "c"])
    assert "Embedding" not in capsys.readouterr().err
    tiny.encode(["a", "b", "c"], batch_size=2, show_progress=True)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("fits", [1, 3, 8])
def test_a_batch_that_does_not_fit_into_memory_is_halved(
    tiny: VisualizedBGE,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fits: int,
) -> None:
    forward = tiny.model.forward
    sizes: list[int] = []

    def little_memory(input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(input_ids) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(input_ids))
        return forward(input_ids, *rest)

    items = every_kind()
    expected = tiny.encode(items, batch_size=16)
    monkeypatch.setattr(tiny.model, "forward", little_memory)
    monkeypatch.setattr(tiny, "_warned_of_memory", False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_allclose(tiny.encode(items, batch_size=16), expected, rtol=0, atol=SAME)
    assert max(sizes) <= fits
    assert sum(sizes) == 2 * len(items)
    assert [record.message[:10] for record in caplog.records] == ["A batch of"]  # once, not every time


def test_one_item_that_does_not_fit_is_an_error(tiny: VisualizedBGE, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(tiny.model, "forward", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        tiny.encode(list(TEXTS))
