"""Embeddings equal those of the authors' code, step by step and in the end.

The tolerances are those of the golden README: 5e-6 on normalised and 1e-4 on raw embeddings, in float32 on
a CPU.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.visualized_bge_golden import (
    CASES,
    FULL_BASE,
    FULL_M3,
    GOLDEN,
    IMAGES,
    NO_FULL_SIZE,
    TINY,
    case_of,
    cases,
    golden,
    write_folder,
)

from llama_index_multimodal_rerank.models.fast_tokenizer import truncate
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE
from llama_index_multimodal_rerank.models.visualized_bge.processing import (
    crop_image,
    normalize_crops,
)

QUICK = (*TINY, *([FULL_BASE] if FULL_BASE else []))
SLOW = [pytest.param(FULL_M3, marks=pytest.mark.slow)] if FULL_M3 else []


def open_image(name: str) -> Image.Image:
    return Image.open(IMAGES / name)


def pixels(names: list[str]) -> torch.Tensor:
    return normalize_crops(torch.from_numpy(np.stack([crop_image(open_image(name)) for name in names])))


def embed_raw(bge: VisualizedBGE, model: str, entry: dict[str, Any]) -> np.ndarray:
    """Run tokenizer, preprocessing and model on a case, padded as one batch; the empty text included."""
    images = entry.get("images", [])
    arrays = golden(model)
    if entry["kind"].startswith("raw_ids"):
        ids = torch.from_numpy(arrays[f"{entry['id']}/input_ids"]).long()
        mask = torch.from_numpy(arrays[f"{entry['id']}/attention_mask"]).long()
    else:
        limit = bge.max_text_tokens_with_image if images else bge.max_text_tokens
        texts = entry.get("texts", [""] * len(images))
        ids, mask = bge.tokenizer.pad([truncate(row, limit) for row in bge.tokenizer(texts)])
        np.testing.assert_array_equal(ids, arrays[f"{entry['id']}/input_ids"])
        np.testing.assert_array_equal(mask, arrays[f"{entry['id']}/attention_mask"])
    with torch.inference_mode():
        return bge.model(ids, mask, pixels(images) if images else None).numpy()


def normalized(raw: np.ndarray) -> np.ndarray:
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def assert_close(raw: np.ndarray, model: str, case_id: str, suffix: str = "") -> None:
    arrays = golden(model)
    np.testing.assert_allclose(raw, arrays[f"{case_id}/embedding_raw{suffix}"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(normalized(raw), arrays[f"{case_id}/embedding{suffix}"], rtol=0, atol=5e-6)


def all_cases(models: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(model, entry, id=f"{model}-{entry['id']}")
        for model in models
        for entry in cases(model)
        if "weight_scale" not in entry
    ]


@pytest.mark.parametrize("name", CASES["preprocessing"]["images"])
def test_crop_equals_the_reference_bit_for_bit(name: str) -> None:
    facts = CASES["preprocessing"]["images"][name]
    with warnings.catch_warnings():  # Pillow would remark that transparency is lost
        warnings.simplefilter("error")
        crop_image(open_image(name))
    with np.load(GOLDEN / CASES["preprocessing"]["golden"]) as arrays:
        np.testing.assert_array_equal(crop_image(open_image(name)), arrays[f"crop_uint8/{name}"])
        if f"pixels/{name}" in arrays:
            np.testing.assert_allclose(pixels([name])[0], arrays[f"pixels/{name}"], rtol=0, atol=1e-6)
    thousandths = np.round(1000 * pixels([name])[0].numpy()).astype("<i2")
    assert hashlib.sha256(thousandths.tobytes()).hexdigest() == facts["pixels_rounded_sha256"]


@pytest.mark.parametrize(("model", "entry"), all_cases(QUICK))
def test_embedding(load: Callable[[str], VisualizedBGE], model: str, entry: dict[str, Any]) -> None:
    assert_close(embed_raw(load(model), model, entry), model, entry["id"])


@pytest.mark.parametrize(
    ("model", "entry"),
    [
        param
        for param in all_cases(TINY)
        if not param.values[1]["kind"].startswith("raw_ids")
        and ("images" in param.values[1] or "" not in param.values[1]["texts"])
    ],
)
def test_encode(load: Callable[[str], VisualizedBGE], model: str, entry: dict[str, Any]) -> None:
    images, texts = [open_image(name) for name in entry.get("images", [])], entry.get("texts", [])
    items = list(zip(texts, images, strict=True)) if images and texts else images or texts
    bge = load(model)
    assert_close(bge.encode(items, normalize=False), model, entry["id"])
    np.testing.assert_allclose(
        bge.encode(items), golden(model)[f"{entry['id']}/embedding"], rtol=0, atol=5e-6
    )


@pytest.mark.parametrize("model", [*QUICK, *SLOW])
def test_steps_in_between(load: Callable[[str], VisualizedBGE], model: str) -> None:
    bge, arrays, trace = load(model), golden(model), CASES["models"][model]["trace"]
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _module, _inputs, output: seen.__setitem__(
            name, output[0] if isinstance(output, tuple) else output
        )

    def keep_encoder(_module: Any, inputs: Any, output: Any) -> None:
        seen["encoder_input"], seen["encoder_output"] = inputs[0], output.last_hidden_state

    tower, text = bge.model.vision.eva, bge.model.text
    hooks = [
        tower.patch_embed.register_forward_hook(keep("patch_embed")),
        tower.blocks[0].register_forward_hook(keep("vision_block0")),
        tower.blocks[-1].register_forward_hook(keep("vision_tokens")),
        bge.model.visual_proj.register_forward_hook(keep("projected")),
        text.embeddings.register_forward_hook(keep("text_embeddings")),
        text.encoder.layer[0].register_forward_hook(keep("encoder_layer0")),
        text.encoder.register_forward_hook(keep_encoder),
    ]
    rows = trace["token_rows"]
    try:
        for kind, steps in (
            (
                "image_text",
                (
                    "patch_embed",
                    "vision_block0",
                    "vision_tokens",
                    "projected",
                    "text_embeddings",
                    "encoder_input",
                    "encoder_layer0",
                    "encoder_output",
                ),
            ),
            ("text", ("text_embeddings", "encoder_layer0", "encoder_output")),
        ):
            images = trace[kind].get("images", [])
            ids, mask = bge.tokenizer.pad(bge.tokenizer(trace[kind]["texts"]))
            with torch.inference_mode():
                bge.model.last_hidden_state(ids, mask, pixels(images) if images else None)
            for step in steps:
                actual = seen[step][0]
                if rows != "all":
                    short = kind == "text" or step == "text_embeddings"
                    actual = actual[list(rows.values())[1 if short else 0]]
                expected = arrays[f"trace_{kind}/{step}"].reshape(actual.shape)
                # tokens inside the tower are larger (rms 2 to 7) than those of the text encoder
                np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-4, err_msg=f"{kind}: {step}")
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("model", QUICK)
def test_float16_file_rotates_by_its_rounded_tables(
    model_folder: Callable[[str], Path], model: str, tmp_path: Path
) -> None:
    source = model_folder(model) / "model.safetensors"
    folder = write_folder(tmp_path, model, weights="weights.pth", dtype=torch.float16, source=source)
    bge = VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")
    chosen = [entry for entry in cases(model) if entry.get("float16_checkpoint")]
    assert chosen
    for entry in chosen:
        raw = embed_raw(bge, model, entry)
        assert_close(raw, model, entry["id"], "_float16_checkpoint")
        if "images" in entry:  # exact tables would be noticed
            assert np.abs(normalized(raw) - golden(model)[f"{entry['id']}/embedding"]).max() > 1e-5


@pytest.mark.parametrize("model", TINY)
def test_layer_norm_epsilon_of_the_tower(model: str, tmp_path: Path) -> None:
    probes = [entry for entry in cases(model) if "weight_scale" in entry]
    assert probes
    for entry in probes:
        folder = write_folder(tmp_path / entry["id"], model, scale=entry["weight_scale"])
        bge = VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")
        assert_close(embed_raw(bge, model, entry), model, entry["id"])


@pytest.mark.parametrize("model", QUICK)
def test_bfloat16_stays_close(model_folder: Callable[[str], Path], model: str) -> None:
    bge = VisualizedBGE.from_pretrained(model_folder(model), device="cpu", dtype="bfloat16")
    assert bge.dtype == torch.bfloat16
    text, image, both = (case_of(model, kind) for kind in ("text", "image", "image_text"))
    (edit,), (edited,) = both["texts"], both["images"]
    embeddings = bge.encode([text["texts"][0], open_image(image["images"][0]), (edit, open_image(edited))])
    assert embeddings.dtype == np.float32
    expected = [golden(model)[f"{entry['id']}/embedding"][0] for entry in (text, image, both)]
    assert (embeddings * np.stack(expected)).sum(axis=1).min() >= 0.995


@pytest.mark.slow
def test_m3(load: Callable[[str], VisualizedBGE]) -> None:
    if FULL_M3 is None:
        pytest.skip(NO_FULL_SIZE)
    bge = load(FULL_M3)
    for entry in cases(FULL_M3):
        assert_close(embed_raw(bge, FULL_M3, entry), FULL_M3, entry["id"])
