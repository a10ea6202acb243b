from __future__ import annotations

from typing import Any

import pytest
import torch
from support import phi3_vision_golden as golden
from support.drawing import draw

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.models.phi3_vision.image_embedding_phi3_vision import merge_patches

RECORDED = golden.read_json("cases.json")["image_features"]
TOLERANCE = 2e-5


@pytest.mark.parametrize("key", RECORDED)
@torch.no_grad()
def test_features_equal_the_reference(
    key: str, model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    arrays = golden.read_arrays("golden_tiny.npz")
    name, num_crops = key.split("/nc")
    out = processor.image_processor(golden.picture(name), num_crops=int(num_crops))
    (features,) = model.get_image_features(out["pixel_values"], out["image_sizes"])
    assert list(features.shape) == RECORDED[key]["shape"]
    prefix = f"image_features/{key}"
    rows = torch.from_numpy(arrays[f"{prefix}/rows"])
    assert golden.worst(features[rows], arrays[f"{prefix}/values"]) <= TOLERANCE
    assert golden.worst(features.double().mean(dim=1), arrays[f"{prefix}/row_mean"]) <= TOLERANCE
    assert golden.worst(features.double().norm(dim=1), arrays[f"{prefix}/row_norm"]) <= TOLERANCE


@torch.no_grad()
def test_tower_equals_the_reference(load_tiny: Any) -> None:
    model = load_tiny()  # new: output_hidden_states below leaves hooks behind
    arrays = golden.read_arrays("golden_tiny.npz")
    recorded = golden.read_json("cases.json")["tower"]
    pixels = torch.from_numpy(
        golden.seeded_weights.generate_input(recorded["key"], recorded["shape"], recorded["seed"])
    )
    embedding = model.model.vision_embed_tokens
    hidden_states = embedding.img_processor(pixels, output_hidden_states=True).hidden_states
    positions = torch.from_numpy(arrays["tower/positions"])
    assert len(hidden_states) == recorded["num_hidden_states"]
    for index, hidden in enumerate(hidden_states):
        assert golden.worst(hidden[:, positions], arrays[f"tower/hidden_{index}"]) <= TOLERANCE
    patches = embedding.patch_features(pixels).double()
    assert golden.worst(patches.mean(dim=-1), arrays["tower/patch_row_mean"]) <= TOLERANCE
    assert golden.worst(patches.norm(dim=-1), arrays["tower/patch_row_norm"]) <= TOLERANCE


OUTPUTS = {
    "output_hidden_states": lambda model, inputs: model(**inputs, output_hidden_states=True),
    "output_attentions": lambda model, inputs: model(**inputs, output_attentions=True),
    "generate": lambda model, inputs: model.generate(
        **inputs, max_new_tokens=2, output_hidden_states=True, return_dict_in_generate=True
    ),
}


@pytest.mark.parametrize("ask", OUTPUTS.values(), ids=OUTPUTS)
@torch.no_grad()
def test_features_stay_the_same_after_outputs_were_captured(
    ask: Any, load_tiny: Any, processor: Phi3VisionProcessor
) -> None:
    model = load_tiny(attn_implementation="eager")  # the only attention that gives its weights
    inputs = processor("<|image_1|> what?", draw("one tile"), num_crops=1)
    (before,) = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    for _ in range(2):  # hooks are installed by the first call; the tower has run before
        ask(model, inputs)
        (after,) = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
        assert torch.equal(before, after)


@torch.no_grad()
def test_the_tower_leaves_out_its_last_layer(load_tiny: Any, processor: Phi3VisionProcessor) -> None:
    model = load_tiny()
    ran: list[int] = []
    layers = model.model.vision_embed_tokens.tower.encoder.layers
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    inputs = processor("<|image_1|> what?", draw("one tile"), num_crops=1)
    model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    assert ran == list(range(len(layers) - 1))


def test_blocks_of_four_patches_are_joined_in_reading_order() -> None:
    patches = torch.arange(576.0).reshape(1, 576, 1)  # patch number = 24 * row + column
    merged = merge_patches(patches)
    assert merged.shape == (1, 12, 12, 4)
    assert merged[0, 0, 0].tolist() == [0, 1, 24, 25]
    assert merged[0, 0, 1].tolist() == [2, 3, 26, 27]
    assert merged[0, 1, 0].tolist() == [48, 49, 72, 73]


@torch.no_grad()
def test_a_batch_of_pictures_equals_one_by_one_and_unused_views_do_not_matter(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    images = [draw("wide"), draw("square"), draw("tall")]
    batch = processor.image_processor(images, num_crops=4)
    pixel_values = batch["pixel_values"].clone()
    pixel_values[0, 4:] = torch.nan  # three tiles are used, the fourth is not
    together = model.get_image_features(pixel_values, batch["image_sizes"])
    for image, features in zip(images, together, strict=True):
        alone = processor.image_processor(image, num_crops=4)
        (expected,) = model.get_image_features(alone["pixel_values"], alone["image_sizes"])
        assert (features - expected).abs().max() <= TOLERANCE  # products of fewer rows


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((1, 5, 3, 336, 336), [[672, 672], [336, 336]], "same number of images"),
        ((5, 3, 336, 336), [[672, 672]], r"pixel_values has shape \(5, 3, 336, 336\)"),
        ((1, 4, 3, 336, 336), [[672, 672]], "needs 5 views, but pixel_values holds 4"),
        ((1, 5, 3, 336, 336), [[500, 500]], "multiples of 336"),
    ],
)
def test_arguments_that_do_not_fit(
    shape: tuple[int, ...], sizes: list[list[int]], message: str, model: Phi3VisionForConditionalGeneration
) -> None:
    with pytest.raises(ValueError, match=message):
        model.get_image_features(torch.zeros(shape), torch.tensor(sizes))


def test_gradients_reach_the_separators_and_the_projector(
    load_tiny: Any, processor: Phi3VisionProcessor
) -> None:
    model = load_tiny()
    inputs = processor("<|image_1|> what?", draw("one tile"), num_crops=1)
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    embedding = model.model.vision_embed_tokens
    for parameter in (embedding.glb_GN, embedding.sub_GN, embedding.img_projection[0].weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
