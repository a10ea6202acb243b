"""The public face: pictures and pairs, in order, from any thread; no text alone."""

from __future__ import annotations

import doctest
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.drawing import draw_picture
from support.golden import read_json
from support.magiclens_golden import CASES, GOLDEN, TINY, config, seeded_model

from llama_index_multimodal_rerank.models.magiclens import MagicLens, encoder
from llama_index_multimodal_rerank.models.magiclens.modeling import MagicLensModel
from llama_index_multimodal_rerank.models.magiclens.processing import MagicLensTokenizer, squash_image

# One by one or in a batch, libraries add the same products in another order. The specification saw rows of
# the reference move by 1.3e-6.
SAME = 5e-6
TEXTS = ("", "the same, but at night", "with two pockets!; wow!!!", "un perro más grande", "&amp; red " * 30)
PICTURES = [((300, 260), "RGB"), ((250, 310), "L"), ((7, 5), "RGBA")]


def opener(number: int) -> Callable[[], Image.Image]:
    size, mode = PICTURES[number]
    return lambda: draw_picture(number, size).convert(mode)


def every_kind() -> list[Any]:
    """Pictures and pairs."""
    images = [opener(number) for number in range(len(PICTURES))]
    return [*images, *((text, image) for text in TEXTS for image in images)]


@pytest.fixture(scope="module", params=TINY)
def lens(request: pytest.FixtureRequest, load: Callable[[str], MagicLens]) -> MagicLens:
    return load(request.param)


@pytest.fixture(scope="module")
def one_by_one(lens: MagicLens) -> np.ndarray:
    return np.concatenate([lens.encode([item]) for item in every_kind()])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batched_equals_one_by_one(lens: MagicLens, one_by_one: np.ndarray, batch_size: int) -> None:
    embeddings = lens.encode(every_kind(), batch_size=batch_size)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, one_by_one, rtol=0, atol=SAME)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    distances = np.abs(one_by_one[:, None] - one_by_one[None]).max(-1)
    images = len(PICTURES)
    for i, j in np.argwhere(np.triu(np.ones_like(distances), 1)):
        same = i < images and j == i + images  # a picture alone is a picture with the empty text
        assert (distances[i, j] < SAME) == same, (i, j)


def test_order_is_kept(lens: MagicLens, one_by_one: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(one_by_one))
    items = every_kind()
    found = lens.encode([items[i] for i in order], batch_size=4)
    np.testing.assert_allclose(found, one_by_one[order], rtol=0, atol=SAME)


def test_eight_threads_share_one_model(lens: MagicLens, one_by_one: np.ndarray) -> None:
    barrier = threading.Barrier(8)

    def embed(_: int) -> np.ndarray:
        barrier.wait()
        return lens.encode(every_kind(), batch_size=3)

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(embed, range(8)):
            np.testing.assert_allclose(found, one_by_one, rtol=0, atol=SAME)


def test_every_text_of_a_batch_is_computed_once(tiny: MagicLens, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    embed_text = MagicLensModel.embed_text

    def record(model: MagicLensModel, input_ids: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(input_ids.shape))
        return embed_text(model, input_ids)

    monkeypatch.setattr(MagicLensModel, "embed_text", record)
    image = opener(0)
    tiny.encode([image] * 6 + [("red", image)] * 2, batch_size=8)
    assert calls == [(2, 3)]  # the empty text and "red", padded to the longer: start, word, end
    calls.clear()
    tiny.encode([image] * 5, batch_size=8)
    assert calls == [(1, 2)]


@pytest.mark.parametrize("items", [["a mug"], [opener(0), "a mug"], ["a mug", ("a mug", opener(0))]])
def test_a_text_alone_is_refused_before_anything_runs(
    tiny: MagicLens, monkeypatch: pytest.MonkeyPatch, items: list[Any]
) -> None:
    monkeypatch.setattr(tiny, "model", tiny.model)
    monkeypatch.setattr(MagicLensModel, "forward", lambda *_: pytest.fail("the model ran"))
    index = items.index("a mug")
    with pytest.raises(ValueError, match=rf"items\[{index}\] is a text without an image.*Visualized BGE"):
        tiny.encode(items)
    with pytest.raises(ValueError, match="empty text without an image"):
        tiny.encode([""])


def test_long_texts_are_cut_with_a_warning(tiny: MagicLens, caplog: pytest.LogCaptureFixture) -> None:
    cases = read_json(GOLDEN / CASES["text"]["cases"])["cases"]
    limit = tiny.max_text_tokens
    long = next(entry["text"] for entry in cases if entry["length"] > limit)
    fits = next(entry["text"] for entry in cases if entry["length"] == limit)
    image = opener(0)
    with caplog.at_level(logging.WARNING):
        tiny.encode([("red", image), (fits, image)])
        assert caplog.records == []
        found = tiny.encode([(long, image), ("red", image), (long + " and blue", image)])
    assert [record.getMessage() for record in caplog.records] == [
        f"2 of 3 texts were cut: the model reads {limit} tokens of a text."
    ]
    np.testing.assert_allclose(found[0], found[2], rtol=0, atol=SAME)


def test_preprocessed_pictures_embed_the_same(tiny: MagicLens) -> None:
    square = tiny.preprocess(opener(1)())
    side = tiny.model.config.vision.image_size
    assert (square.dtype, square.shape) == (np.float32, (3, side, side))
    found = tiny.encode([opener(1), square, ("red", square), ("red", opener(1))])
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=SAME)
    np.testing.assert_allclose(found[2], found[3], rtol=0, atol=SAME)


@pytest.mark.parametrize("shape", [(3, 224, 223), (224, 224, 3), (224, 224)])
def test_other_arrays_are_refused(tiny: MagicLens, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"items\[0\] has an array of float32 .*preprocess"):
        tiny.encode([np.zeros(shape, np.float32)])


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="empty: 0 x 5 pixels"):
        squash_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(("size", "level"), [((31, 17), 9), ((500, 3), 255), ((224, 224), 1)])
def test_a_flat_picture_becomes_white_by_its_own_maximum(size: tuple[int, int], level: int) -> None:
    np.testing.assert_allclose(squash_image(Image.new("L", size, level)), 1, atol=1e-6)
    np.testing.assert_array_equal(squash_image(Image.new("L", size, 0)), 0)  # black stays black


def test_nothing_is_cut_off_and_channels_stay_apart() -> None:
    image = Image.new("RGB", (448, 900), (0, 0, 200))
    image.paste((100, 0, 0), (0, 0, 448, 450))  # the upper half red, of half the largest value
    square = squash_image(image)
    np.testing.assert_allclose(square[:, 20, 100], [0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(square[:, 200, 100], [0, 0, 1], atol=1e-6)


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    tiny: MagicLens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = tiny.encode(every_kind())
    forward = MagicLensModel.forward

    def little_memory(model: MagicLensModel, ids: Any, pixels: torch.Tensor, index: Any) -> torch.Tensor:
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(model, ids, pixels, index)

    monkeypatch.setattr(MagicLensModel, "forward", little_memory)
    monkeypatch.setattr(tiny, "_warned_of_memory", False)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(tiny.encode(every_kind(), batch_size=16), expected, rtol=0, atol=SAME)
    assert [record.message[:10] for record in caplog.records if "halved" in record.message] == ["A batch of"]


def test_fingerprint_is_the_same_in_every_precision_and_another_for_other_weights() -> None:
    prints = [seeded_model(TINY[0], dtype=dtype).fingerprint for dtype in (torch.float32, torch.bfloat16)]
    assert prints[0] == prints[1]
    assert prints[0].keys() == {"model", "weights_sha256", "preprocessing", "dim"}
    key = "params/contrastive_multimodal_pooler/pooling_attn_query"
    assert seeded_model(TINY[0], {key: 2.0}).fingerprint["weights_sha256"] != prints[0]["weights_sha256"]
    # nothing depends on CLIP's temperature
    assert seeded_model(TINY[0], {"params/clip/logit_scale": 2.0}).fingerprint == prints[0]


def test_properties(lens: MagicLens) -> None:
    assert lens.dim == lens.model.config.fusion.hidden_size
    assert (lens.device.type, lens.dtype) == ("cpu", torch.float32)
    assert lens.image_tokens == lens.model.config.vision.num_patches + 1


def test_tokenizer_of_another_model(tiny: MagicLens) -> None:
    text = config(TINY[0]).text
    other = type(text)(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        vocab_size=text.vocab_size + 1, eos_token_id=text.vocab_size,
    )  # fmt: skip
    with pytest.raises(ValueError, match="does not belong to the model: it has"):
        MagicLensTokenizer(tiny.tokenizer.tokenizer, other)


FAR_AWAY = {"type": "BertProcessing", "cls": ["a", 0], "sep": ["b", 99_999]}


@pytest.mark.parametrize(
    ("post_processor", "message"),
    [
        (None, "gives 0 ids for a text, and the model reads at least 2"),
        (FAR_AWAY, r"gives ids from \d+ to 99999, and the model has \d+ rows"),
    ],
    ids=["no start and end", "an id far away"],
)
def test_tokenizers_whose_ids_the_model_cannot_read(
    tmp_path: Path, tiny: MagicLens, post_processor: dict[str, Any] | None, message: str
) -> None:
    tiny.tokenizer.tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": post_processor}))
    tokenizer = MagicLensTokenizer.from_folder(tmp_path, tiny.model.config.text)
    with pytest.raises(ValueError, match=message):
        tokenizer([""])


def test_seeds_give_models(tmp_path: Path) -> None:
    first, again, other = (MagicLens.from_config(config(TINY[0]), seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert np.isfinite(first.encode([opener(0)])).all()


def test_the_example_runs() -> None:
    found = doctest.testmod(encoder, optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 8
    assert found.failed == 0
