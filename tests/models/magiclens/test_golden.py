"""Embeddings equal those of the authors' code, step by step and in the end.

The tolerances are those of the golden set: 1e-5 on normalised and 2e-4 on raw embeddings, 5e-5 on the towers'
outputs, 2e-5 on pictures, in float32 on a CPU; ids are equal.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.golden import read_json
from support.magiclens_golden import (
    CASES,
    FULL,
    GOLDEN,
    IMAGES,
    NO_TOKENIZER,
    TINY,
    TOLERANCES,
    TRACE_TOLERANCE,
    cases,
    config,
    golden,
    seeded_model,
    seeded_module,
)

from llama_index_multimodal_rerank.models.fast_tokenizer import truncate
from llama_index_multimodal_rerank.models.magiclens import MagicLens, MagicLensModel
from llama_index_multimodal_rerank.models.magiclens.modeling import meta_model
from llama_index_multimodal_rerank.models.magiclens.processing import (
    MagicLensTokenizer,
    clean_text,
    normalize_squares,
    squash_image,
)

PREPROCESSING = CASES["preprocessing"]


def pixels(names: list[str]) -> torch.Tensor:
    squares = [squash_image(Image.open(IMAGES / name)) for name in names]
    return normalize_squares(torch.from_numpy(np.stack(squares)))


def texts_of(entry: dict[str, Any]) -> list[str]:
    return list(entry.get("texts", [""] * len(entry["images"])))


def check(model: MagicLensModel, name: str, entry: dict[str, Any], ids: torch.Tensor) -> None:
    """Compare the towers' outputs and both embeddings of a case, computed as one batch."""
    with torch.inference_mode():
        image, text = model.embed_image(pixels(entry["images"])), model.embed_text(ids)
        raw = model.fuse(image, text)
        assert torch.equal(
            model(ids, pixels(entry["images"]), torch.arange(len(ids))), raw
        )  # the steps are those of forward
    found = {
        "clip_image_embed": image,
        "clip_text_embed": text,
        "embedding_raw": raw,
        "embedding": torch.nn.functional.normalize(raw, dim=-1),
    }
    for step, actual in found.items():
        expected = golden(name)[f"{entry['id']}/{step}"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCES[step], err_msg=step)


def ids_of(tokenizer: MagicLensTokenizer | None, name: str, entry: dict[str, Any]) -> torch.Tensor:
    """A case's ids, padded to what the reference pads to; of texts, compared with it."""
    stored = torch.from_numpy(golden(name)[f"{entry['id']}/input_ids"]).long()
    if not entry["kind"].startswith("raw_ids"):
        assert tokenizer is not None
        own = tokenizer.pad(tokenizer(texts_of(entry)))
        own = torch.nn.functional.pad(own, (0, stored.shape[1] - own.shape[1]))
        assert torch.equal(own, stored)
    return stored


def params(models: tuple[str, ...], *, probes: bool = False) -> list[Any]:
    return [
        pytest.param(name, entry, id=f"{name}-{entry['id']}")
        for name in models
        for entry in cases(name)
        if ("weight_scale" in entry) == probes
    ]


@pytest.mark.parametrize("name", PREPROCESSING["images"])
def test_picture_equals_the_reference(name: str) -> None:
    with warnings.catch_warnings(), Image.open(IMAGES / name) as image:
        warnings.simplefilter("error")  # Pillow would remark that transparency is lost
        square = squash_image(image)
    rows = PREPROCESSING["rows"]
    with np.load(GOLDEN / PREPROCESSING["golden"]) as arrays:
        found = square.transpose(1, 2, 0)[rows]
        np.testing.assert_allclose(found, arrays[f"unit_rows/{name}"], rtol=0, atol=TOLERANCES["unit_rows"])
        if f"model_input_rows/{name}" in arrays:
            found = pixels([name])[0].permute(1, 2, 0)[rows].numpy()
            expected = arrays[f"model_input_rows/{name}"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCES["model_input_rows"])
    facts = PREPROCESSING["images"][name]
    for fact, value in (
        ("unit_mean", square.mean((1, 2))),
        ("unit_std", square.std((1, 2))),
        ("unit_min", square.min()),
        ("unit_max", square.max()),
    ):
        np.testing.assert_allclose(value, facts[fact], rtol=0, atol=TOLERANCES["unit_rows"])


def test_tokenizer_ids_are_those_of_the_reference(load: Callable[[str], MagicLens]) -> None:
    tokenizer = load(TINY[0]).tokenizer
    limit = load(TINY[0]).max_text_tokens
    found = read_json(GOLDEN / CASES["text"]["cases"])["cases"]
    assert found
    for entry in found:
        assert clean_text(entry["text"]) == entry["cleaned"], entry["name"]
        (ids,) = tokenizer([entry["text"]])
        if "refused" in entry:  # too long: the reference stops, ours cuts
            assert ids.tolist() == entry["ids_untruncated"], entry["name"]
            assert truncate(ids, limit).tolist() == entry["ids_truncated"], entry["name"]
        else:
            assert ids.tolist() == entry["ids"], entry["name"]


@pytest.mark.parametrize(("name", "entry"), params(TINY))
def test_golden_embedding(load: Callable[[str], MagicLens], name: str, entry: dict[str, Any]) -> None:
    lens = load(name)
    check(lens.model, name, entry, ids_of(lens.tokenizer, name, entry))


@pytest.mark.parametrize(("name", "entry"), params(NO_TOKENIZER))
def test_golden_embedding_of_ids(name: str, entry: dict[str, Any]) -> None:
    check(seeded_module(name), name, entry, ids_of(None, name, entry))


@pytest.mark.parametrize(("name", "entry"), params(TINY, probes=True))
def test_golden_probe(name: str, entry: dict[str, Any]) -> None:
    """Weights scaled so that a wrong epsilon, or a forgotten cap of the logits, shows."""
    lens = seeded_model(name, entry["weight_scale"])
    check(lens.model, name, entry, ids_of(lens.tokenizer, name, entry))


@pytest.mark.parametrize(
    ("name", "entry"), [each for each in params(TINY) if not each.values[1]["kind"].startswith("raw_ids")]
)
def test_golden_encode(load: Callable[[str], MagicLens], name: str, entry: dict[str, Any]) -> None:
    lens = load(name)
    items = list(zip(texts_of(entry), map(Image.open, (IMAGES / i for i in entry["images"])), strict=True))
    for kind, normalize in (("embedding", True), ("embedding_raw", False)):
        expected = golden(name)[f"{entry['id']}/{kind}"]
        together = lens.encode(items, normalize=normalize)
        np.testing.assert_allclose(together, expected, rtol=0, atol=TOLERANCES[kind])
        for item, row in zip(items, expected, strict=True):
            one = lens.encode([item], normalize=normalize)[0]
            np.testing.assert_allclose(one, row, rtol=0, atol=TOLERANCES[kind])


@pytest.mark.parametrize("name", TINY)
def test_golden_steps_in_between(load: Callable[[str], MagicLens], name: str) -> None:
    check_steps(load(name), name)


def check_steps(lens: MagicLens, name: str) -> None:
    trace, arrays, model = CASES["models"][name]["trace"], golden(name), lens.model
    seen: dict[str, torch.Tensor] = {}

    def keep(step: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            seen[step] = output[0] if isinstance(output, tuple) else output

        return hook

    vision, text = model.clip.vision_model, model.clip.text_model
    steps: dict[str, torch.nn.Module] = {
        "patch_embed": vision.embeddings.patch_embedding,
        "vision_ln_pre": vision.pre_layrnorm,
        "vision_block_0": vision.encoder.layers[0],
        "vision_block_last": vision.encoder.layers[-1],
        "vision_ln_post": vision.post_layernorm,
        "text_token_embedding": text.embeddings.token_embedding,
        "text_block_0": text.encoder.layers[0],
        "text_block_last": text.encoder.layers[-1],
        "text_ln_final": text.final_layer_norm,
        "pool_attention": model.fusion.pooler.post,
    }
    for i, layer in enumerate(model.fusion.layers):
        steps |= {f"fusion_{i}_norm": layer.norm, f"fusion_{i}_attention": layer.attention}
        steps[f"fusion_{i}_output"] = layer
    hooks = [module.register_forward_hook(keep(step)) for step, module in steps.items()]
    try:
        ids = lens.tokenizer.pad(lens.tokenizer([trace["text"]]))
        with torch.inference_mode():
            model(ids, pixels([trace["image"]]), torch.tensor([0]))
    finally:
        for hook in hooks:
            hook.remove()
    for step, value in seen.items():
        actual = value[0] if step != "pool_attention" else value.flatten()
        if step == "patch_embed":  # (width, rows, columns); row 0 of the sequence is the class token
            actual = actual.flatten(1).t()[[row - 1 for row in trace["vision_rows"] if row]]
        elif step.startswith("vision") and step != "vision_ln_post":
            actual = actual[trace["vision_rows"]]
        elif step.startswith("text"):
            actual = actual[trace["text_rows"]]
        expected = arrays[f"trace/{step}"].reshape(actual.shape)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TRACE_TOLERANCE, err_msg=step)
    assert len(seen) == len(steps)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 4e-3), ("bfloat16", 6e-2)])
def test_golden_half_precision_of_the_towers(name: str, dtype: str, tolerance: float) -> None:
    """The specification saw 2e-3 and 3e-2 with everything in half precision; the head stays in float32."""
    lens = seeded_model(name, dtype=getattr(torch, dtype))
    assert {parameter.dtype for parameter in lens.model.clip.parameters()} == {lens.dtype}
    assert {parameter.dtype for parameter in lens.model.fusion.parameters()} == {torch.float32}
    chosen = [entry for entry in cases(name) if entry["kind"] == "image_text_batch"]
    assert chosen
    for entry in chosen:
        items = list(zip(entry["texts"], map(Image.open, (IMAGES / i for i in entry["images"])), strict=True))
        found = lens.encode(items)
        assert found.dtype == np.float32
        expected = golden(name)[f"{entry['id']}/embedding"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_golden_full_size(name: str) -> None:
    lens = seeded_model(name)
    for entry in cases(name):
        check(lens.model, name, entry, ids_of(lens.tokenizer, name, entry))
    check_steps(lens, name)


@pytest.mark.parametrize("name", [*TINY, *FULL])
def test_building_needs_no_memory(name: str) -> None:
    assert {parameter.device.type for parameter in meta_model(config(name)).parameters()} == {"meta"}
