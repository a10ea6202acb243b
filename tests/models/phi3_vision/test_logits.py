from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import phi3_vision_golden as golden
from support.drawing import draw
from transformers import Phi3Model, StaticCache

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.models.phi3_vision.cache_argument import output_cache

CaseInputs = Callable[[dict[str, Any]], dict[str, Any]]
CHECKED = [case for case in golden.cases() if case["checks"]["logits"]]
TOLERANCE = 2e-5


def test_the_seeded_weights_are_the_recorded_ones() -> None:
    digests = golden.read_json("cases.json")["weight_sha256"]
    weights = golden.tiny_state_dict()
    assert set(weights) == set(digests)
    for name, values in weights.items():
        assert golden.seeded_weights.digest(values.numpy()) == digests[name], name


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", CHECKED, ids=lambda case: case["name"])
@torch.no_grad()
def test_logits_equal_the_reference(
    case: dict[str, Any], attention: str, load_tiny: Any, case_inputs: CaseInputs
) -> None:
    if attention == "eager" and case["length"] > 2000:
        pytest.skip(
            "eager attention over thousands of tokens takes seconds and shows nothing the others do not"
        )
    arrays = golden.read_arrays("golden_tiny.npz")
    name = case["name"]
    model = load_tiny(case["config_overrides"], attn_implementation=attention)
    inputs = case_inputs(case)
    logits = model(**inputs).logits[0]
    positions = torch.from_numpy(arrays[f"{name}/positions"])
    assert golden.worst(logits[positions], arrays[f"{name}/logits"]) <= TOLERANCE
    assert golden.worst(logits[-1], arrays[f"{name}/last_logits"]) <= TOLERANCE

    features = ()
    if "pixel_values" in inputs:
        features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    embeds = model.model.embed(inputs["input_ids"], features)[0].double()
    assert golden.worst(embeds.mean(dim=-1), arrays[f"{name}/embeds_row_mean"]) <= TOLERANCE
    assert golden.worst(embeds.norm(dim=-1), arrays[f"{name}/embeds_row_norm"]) <= TOLERANCE


@pytest.mark.parametrize("size", ["tiny", "128k"])
@pytest.mark.parametrize("factors", ["short", "long"])
def test_rotary_positions_equal_the_reference(size: str, factors: str) -> None:
    from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionConfig
    from llama_index_multimodal_rerank.models.phi3_vision.rotary_phi3_vision import Phi3VisionRotaryEmbedding

    arrays = golden.read_arrays("golden_rope.npz")
    config = Phi3VisionConfig(**golden.read_json(f"config_{size}.json"))
    rotary = Phi3VisionRotaryEmbedding(config)
    prefix = f"{size}/{factors}"
    positions = arrays[f"{prefix}/positions"]
    cos, sin = rotary(torch.zeros(1), torch.from_numpy(positions)[None])
    inv_freq = rotary.long_inv_freq if factors == "long" else rotary.original_inv_freq
    assert (positions.max() + 1 > config.original_max_position_embeddings) == (factors == "long")
    expected = arrays[f"{prefix}/inv_freq"]
    assert golden.worst(inv_freq, expected) <= 1e-6
    # Processors differ in the last bit of a power: then the frequency is off by 2**-23 of itself, and so is
    # the angle, which is up to 127,000 for the released model.
    allowed = 1e-6 + 2.0**-23 * positions[:, None] * np.concatenate([expected, expected])
    assert (np.abs(cos[0].numpy() - arrays[f"{prefix}/cos"]) <= allowed).all()
    assert (np.abs(sin[0].numpy() - arrays[f"{prefix}/sin"]) <= allowed).all()
    recorded = golden.read_json("cases.json")["rope"][size]["attention_scaling"]
    assert rotary.attention_scaling == pytest.approx(recorded)


def test_loading_restores_the_rotary_buffers_that_no_checkpoint_holds(model: Any) -> None:
    arrays = golden.read_arrays("golden_rope.npz")
    rotary = model.model.rotary_emb
    assert golden.worst(rotary.long_inv_freq, arrays["tiny/long/inv_freq"]) <= 1e-6
    assert golden.worst(rotary.original_inv_freq, arrays["tiny/short/inv_freq"]) <= 1e-6


@torch.no_grad()
def test_a_left_padded_batch_equals_one_by_one(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    prompts = ["<|image_1|> what?", "Only text", "First <|image_1|> then <|image_2|>, which?"]
    names = [["one tile"], [], ["tiny", "palette"]]
    batch = processor(prompts, [[draw(name) for name in own] for own in names], num_crops=1)
    together = model(**batch, logits_to_keep=1).logits
    for row, (prompt, own) in enumerate(zip(prompts, names, strict=True)):
        alone = model(**processor(prompt, [draw(name) for name in own], num_crops=1), logits_to_keep=1).logits
        assert (together[row] - alone[0]).abs().max() <= TOLERANCE


@torch.no_grad()
def test_a_short_row_keeps_its_short_factors_next_to_a_long_one(
    load_tiny: Any, processor: Phi3VisionProcessor
) -> None:
    model = load_tiny({"original_max_position_embeddings": 16})
    prompts = ["Yes or no?", "A question that is clearly longer than sixteen tokens. " * 2]
    batch = processor(prompts)
    lengths = batch["attention_mask"].sum(dim=1)
    assert lengths[0] <= 16 < lengths[1]
    together = model(**batch).logits[:, -1]
    for row, prompt in enumerate(prompts):
        alone = model(**processor(prompt)).logits[0, -1]
        assert (together[row] - alone).abs().max() <= TOLERANCE
    # The choice matters: with the long factors the short row's logits differ.
    other = load_tiny({"original_max_position_embeddings": 2})
    assert (other(**processor(prompts[0])).logits[0, -1] - together[0]).abs().max() > 1e-2


@torch.no_grad()
def test_features_go_where_their_tag_stands(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    first, second = [draw("square"), draw("wide")]
    text = "<|user|>\n<|image_{}|>\n<|image_{}|>\nWhich is wide?<|end|>\n<|assistant|>\n"
    swapped_tags = model(**processor(text.format(2, 1), [first, second], num_crops=4)).logits
    swapped_list = model(**processor(text.format(1, 2), [second, first], num_crops=4)).logits
    straight = model(**processor(text.format(1, 2), [first, second], num_crops=4)).logits
    assert (swapped_tags - swapped_list).abs().max() <= golden.SAME_LOGITS  # features of another batch
    assert (swapped_tags[0, -1] - straight[0, -1]).abs().max() > 1e-2


@torch.no_grad()
def test_precomputed_features_equal_inline_ones(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    images = [draw("wide"), draw("tiny")]
    inputs = processor("<|image_1|><|image_2|> caption?", images, num_crops=1)
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    expected = model(**inputs)
    ids_only = processor("<|image_1|><|image_2|> caption?", image_sizes=inputs["image_sizes"])
    found = model(**ids_only, image_features=features)
    assert (found.logits - expected.logits).abs().max() <= golden.SAME_LOGITS
    assert all(torch.equal(*pair) for pair in zip(found.image_hidden_states, features, strict=True))


def test_inputs_that_do_not_fit_are_refused(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor("<|image_1|>?", draw("one tile"), num_crops=1)
    pixels, sizes = inputs["pixel_values"], inputs["image_sizes"]
    ids = inputs["input_ids"]
    features = model.get_image_features(pixels, sizes)
    with pytest.raises(
        ValueError, match=r"0 pictures were given, but input_ids refers to 1: \[1\] by prompt"
    ):
        model(ids)
    with pytest.raises(ValueError, match="2 pictures were given, but input_ids refers to 1"):
        model(ids, image_features=features * 2)
    with pytest.raises(ValueError, match="1 pictures were given, but input_ids refers to 0"):
        model(processor("Yes")["input_ids"], image_features=features)
    with pytest.raises(ValueError, match=r"312 placeholders for <\|image_1\|>, but that picture has 313"):
        model(torch.cat([ids[:, :5], ids[:, 6:]], dim=1), image_features=features)
    with pytest.raises(ValueError, match=r"prompt 0 has the pictures \[2\] in this order; it was given 2"):
        model(torch.where(ids < 0, -2, ids), image_features=features * 2)
    with pytest.raises(ValueError, match=r"626 placeholders for <\|image_1\|>"):
        model(torch.cat([ids, ids], dim=1), image_features=features)
    with pytest.raises(ValueError, match=r"has the pictures \[1, 2, 1\]"):
        model(torch.cat([ids, ids.where(ids > 0, -2), ids], dim=1), image_features=features * 2)
    with pytest.raises(ValueError, match="pixel_values was given without image_sizes"):
        model(ids, pixels)
    with pytest.raises(ValueError, match="both pixel_values and image_features"):
        model(ids, pixels, sizes, image_features=features)
    with pytest.raises(ValueError, match="image_sizes was given without pixel_values or image_features"):
        model(ids, image_sizes=sizes)
    with pytest.raises(ValueError, match=r"holds \[313\] vectors per picture.* have \[457\]"):
        model(ids, image_sizes=torch.tensor([[336, 672]]), image_features=features)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="image_features needs input_ids"):
        model(inputs_embeds=torch.zeros(1, 2, model.config.hidden_size), image_features=features)


@torch.no_grad()
def test_the_callers_ids_are_left_alone(model: Any, processor: Phi3VisionProcessor) -> None:
    inputs = processor("<|image_1|>?", draw("one tile"), num_crops=1)
    before = inputs["input_ids"].clone()
    model(**inputs)
    model.generate(**inputs, max_new_tokens=2)
    assert torch.equal(inputs["input_ids"], before)


@pytest.mark.parametrize("static", [False, True])
@torch.no_grad()
def test_one_token_at_a_time_through_a_cache_equals_all_at_once(
    static: bool, model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor("<|image_1|> what?", draw("one tile"), num_crops=1)
    ids = inputs["input_ids"]
    expected = model(**inputs).logits
    start = ids.shape[1] - 3
    cache = StaticCache(config=model.config, max_cache_len=ids.shape[1]) if static else None
    out = model(ids[:, :start], inputs["pixel_values"], inputs["image_sizes"], cache=cache, use_cache=True)
    steps = [out.logits]
    for position in range(start, ids.shape[1]):
        out = model(ids[:, position : position + 1], cache=output_cache(out), use_cache=True)
        steps.append(out.logits)
    assert (torch.cat(steps, dim=1) - expected).abs().max() <= TOLERANCE


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch 2.6 cannot trace a decorator of transformers itself"
)
@torch.no_grad()
def test_a_decoding_step_compiles_without_graph_breaks(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor("<|image_1|> what?", draw("one tile"), num_crops=1)
    ids = inputs.pop("input_ids")
    cache = StaticCache(config=model.config, max_cache_len=ids.shape[1])
    expected = model(ids, **inputs).logits[:, -1:]
    inputs.pop("attention_mask")
    model(ids[:, :-1], **inputs, cache=cache)
    step = torch.compile(model, backend="eager", fullgraph=True)
    position = torch.tensor([[ids.shape[1] - 1]])
    options: dict[str, Any] = {"position_ids": position, "cache": cache}
    if "cache_position" in inspect.signature(Phi3Model.forward).parameters:
        options["cache_position"] = position[0]  # early releases of transformers 5, where generate passes it
    found = step(ids[:, -1:], **options).logits
    assert (found - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_bf16_stays_close_to_fp32(
    load_tiny: Any, model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor("<|image_1|> what?", draw("one tile"), num_crops=1)
    exact = model(**inputs).logits
    half = load_tiny(dtype=torch.bfloat16)(**inputs).logits
    assert half.dtype == torch.bfloat16
    assert not torch.equal(half.float(), exact)
    # bf16 keeps 8 bits; over a few layers a relative error of some per cent is what remains.
    assert (half.float() - exact).norm() / exact.norm() < 0.05


@torch.no_grad()
def test_tuple_output_and_kept_positions(model: Any, processor: Phi3VisionProcessor) -> None:
    inputs = processor("Yes or no?")
    full = model(**inputs).logits
    as_tuple = model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], full)
    assert (model(**inputs, logits_to_keep=2).logits - full[:, -2:]).abs().max() <= golden.SAME_LOGITS
    picked = model(**inputs, logits_to_keep=torch.tensor([0, 3])).logits
    assert (picked - full[:, [0, 3]]).abs().max() <= golden.SAME_LOGITS
    hidden = model(**inputs, output_hidden_states=True).hidden_states
    assert len(hidden) == model.config.num_hidden_layers + 1


@torch.no_grad()
def test_loss_is_the_mean_over_text_tokens(model: Any, processor: Phi3VisionProcessor) -> None:
    inputs = processor("<|image_1|> a cat", draw("one tile"), num_crops=1)
    ids = inputs["input_ids"][0]
    out = model(**inputs, labels=inputs["input_ids"])
    log_probabilities = out.logits[0].double().log_softmax(dim=-1)
    wanted = [-log_probabilities[at - 1, ids[at]].item() for at in range(1, len(ids)) if ids[at] >= 0]
    assert out.loss.item() == pytest.approx(np.mean(wanted), abs=1e-5)
