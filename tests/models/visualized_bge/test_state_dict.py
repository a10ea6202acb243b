"""Every key is accounted for, in both directions, whatever the file format."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.visualized_bge_golden import (
    FULL_BASE,
    FULL_M3,
    NO_FULL_SIZE,
    SAME,
    TINY,
    TINY_BERT,
    TINY_XLMR,
    config,
    shapes,
    state_dict,
    write_folder,
)

from llama_index_multimodal_rerank.models.visualized_bge import (
    BASE_EN_V1_5,
    M3,
    CheckpointError,
    VisualizedBGE,
)
from llama_index_multimodal_rerank.models.visualized_bge.modeling import VisualizedBGEModel, meta_model
from llama_index_multimodal_rerank.models.visualized_bge.state_dict import (
    check_keys,
    fill_model,
    upstream_state_dict,
)

CPU = torch.device("cpu")
ROPE = "rope.freqs_"
POSITION_IDS = "bge_embeddings.position_ids"


def filled(tensors: dict[str, torch.Tensor], model: str = TINY_BERT) -> VisualizedBGEModel:
    built = meta_model(config(model))
    fill_model(built, tensors, device=CPU, dtype=torch.float32)
    return built


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return state_dict(TINY_BERT)


@pytest.mark.parametrize(
    ("released", "model", "entries"), [(BASE_EN_V1_5, FULL_BASE, 488), (M3, FULL_M3, 956)]
)
def test_released_keys_fit_none_missing_none_left_over(
    released: Any, model: str | None, entries: int
) -> None:
    if model is None:
        pytest.skip(NO_FULL_SIZE)
    manifest = shapes(model)
    assert len(manifest) == entries
    built = meta_model(released)
    check_keys(built, manifest)
    needed = sorted(key for key in manifest if ROPE not in key)
    with pytest.raises(CheckpointError) as caught:
        check_keys(built, {})
    assert f"missing keys ({len(needed)}):\n  " + "\n  ".join(needed) in str(caught.value)


@pytest.mark.parametrize("model", TINY)
def test_saved_keys_are_the_released_ones(model: str) -> None:
    original = state_dict(model)
    saved = upstream_state_dict(filled(original, model))
    assert saved.keys() == original.keys()
    for key, tensor in original.items():
        torch.testing.assert_close(saved[key], tensor, rtol=0, atol=0)


def test_no_parameter_or_buffer_is_left_on_the_meta_device(state: dict[str, torch.Tensor]) -> None:
    model = filled(state)
    tensors = [*model.parameters(), *model.buffers()]
    assert len(tensors) > 80
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_all_misfits_are_listed(state: dict[str, torch.Tensor]) -> None:
    del state["visual_proj.bias"]
    state["model_visual.visual.surprise"] = torch.zeros(1)
    width = config(TINY_BERT).vision.hidden_size
    state["model_visual.visual.cls_token"] = torch.zeros(1, 1, width + 1)
    with pytest.raises(CheckpointError) as caught:
        filled(state)
    message = str(caught.value)
    assert "missing keys (1):\n  visual_proj.bias" in message
    assert "unexpected keys (1):\n  model_visual.visual.surprise" in message
    wrong = f"model_visual.visual.cls_token is (1, 1, {width + 1}), expected (1, 1, {width})"
    assert f"wrong shapes (1):\n  {wrong}" in message


def test_position_ids_of_old_files_are_tolerated(state: dict[str, torch.Tensor]) -> None:
    positions = config(TINY_BERT).text.max_position_embeddings
    state[POSITION_IDS] = torch.arange(positions).unsqueeze(0)
    filled(state)


def test_rotary_tables_are_those_of_the_file(state: dict[str, torch.Tensor]) -> None:
    for key in [key for key in state if ROPE in key]:
        state[key] = state[key].half()
    sin, cos = (state[f"model_visual.visual.{ROPE}{which}"].float() for which in ("sin", "cos"))
    assert torch.equal(filled(state).vision.rope_table, torch.cat([sin, cos], dim=-1))


@pytest.mark.parametrize("model", TINY)
def test_rotary_tables_are_computed_where_the_file_has_none(model: str) -> None:
    state = state_dict(model)
    expected = filled(state, model).vision.rope_table
    without = {key: tensor for key, tensor in state.items() if ROPE not in key}
    assert len(without) < len(state)
    # Angles go up to 16, where the last bit of float32 is worth 1e-6.
    torch.testing.assert_close(filled(without, model).vision.rope_table, expected, rtol=0, atol=1e-6)


def test_rotary_tables_must_be_complete(state: dict[str, torch.Tensor]) -> None:
    del state[f"model_visual.visual.blocks.1.attn.{ROPE}cos"]
    with pytest.raises(CheckpointError, match=rf"blocks\.1\.attn\.{ROPE}cos"):
        filled(state)


def test_rotary_tables_must_be_copies_of_one(state: dict[str, torch.Tensor]) -> None:
    state[f"model_visual.visual.blocks.1.attn.{ROPE}cos"] *= 0.5
    with pytest.raises(CheckpointError, match=rf"blocks\.1\.attn\.{ROPE}cos differs"):
        filled(state)


def test_rotary_tables_stay_in_float32(state: dict[str, torch.Tensor]) -> None:
    model = meta_model(config(TINY_BERT))
    fill_model(model, state, device=CPU, dtype=torch.bfloat16)
    assert model.vision.rope_table.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_quantised_weights_are_refused(state: dict[str, torch.Tensor]) -> None:
    state["visual_proj.weight"] = state["visual_proj.weight"].to(torch.int8)
    with pytest.raises(CheckpointError, match=r"visual_proj\.weight is torch\.int8"):
        filled(state)


def test_file_of_another_model_names_file_and_model(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, TINY_BERT)
    safetensors.torch.save_file(state_dict(TINY_XLMR), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*do not fit the model '{TINY_BERT}'"):
        VisualizedBGE.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_equals_pth(tmp_path: Path, dtype: torch.dtype) -> None:
    models = [
        VisualizedBGE.from_pretrained(
            write_folder(tmp_path / name, TINY_BERT, weights=name, dtype=dtype), dtype="float32"
        )
        for name in ("model.safetensors", "weights.pth")
    ]
    assert models[0].fingerprint == models[1].fingerprint
    first, second = (bge.encode(["a red cat"]) for bge in models)
    np.testing.assert_allclose(first, second, rtol=0, atol=SAME)


def test_legacy_pth_loads_too(tmp_path: Path, tiny: VisualizedBGE) -> None:
    folder = write_folder(tmp_path, TINY_BERT, weights="weights.pth")
    torch.save(state_dict(TINY_BERT), folder / "weights.pth", _use_new_zipfile_serialization=False)
    bge = VisualizedBGE.from_pretrained(folder, dtype="float32")
    assert bge.fingerprint == tiny.fingerprint


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("name", ["model.safetensors", "weights.pth"])
def test_weights_are_memory_mapped(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path, TINY_BERT, weights=name)
    bge = VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")
    address = bge.model.text.embeddings.word_embeddings.weight.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= address < end:
            assert line.endswith(str(folder / name))
            return
    pytest.fail("the weights are in no mapping of this process")


@pytest.mark.parametrize("model", TINY)
def test_save_and_load_round_trip(load: Callable[[str], VisualizedBGE], model: str, tmp_path: Path) -> None:
    bge = load(model)
    bge.save_pretrained(tmp_path / "new" / "folder")
    again = VisualizedBGE.from_pretrained(tmp_path / "new" / "folder", device="cpu", dtype="float32")
    assert again.model.config == bge.model.config
    assert again.fingerprint == bge.fingerprint
    texts = ["a red cat", "Café naïve: 一只红色的猫"]
    np.testing.assert_allclose(again.encode(texts), bge.encode(texts), rtol=0, atol=SAME)
    assert sorted(file.suffix for file in (tmp_path / "new" / "folder").glob("*.safetensors*")) == [
        ".safetensors"
    ]


def test_saving_over_the_file_it_is_mapped_from(tmp_path: Path, tiny: VisualizedBGE) -> None:
    folder = write_folder(tmp_path, TINY_BERT)
    bge = VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")
    bge.save_pretrained(folder)
    np.testing.assert_allclose(bge.encode(["a red cat"]), tiny.encode(["a red cat"]), rtol=0, atol=SAME)
    assert VisualizedBGE.from_pretrained(folder).fingerprint == tiny.fingerprint


def test_fingerprint_tells_models_apart_and_nothing_else(tmp_path: Path, tiny: VisualizedBGE) -> None:
    fingerprint = tiny.fingerprint
    assert fingerprint["model"] == TINY_BERT
    assert fingerprint["dim"] == str(tiny.dim)
    assert fingerprint["preprocessing"].endswith("224")
    assert len(fingerprint["weights_sha256"]) == 64

    folder = write_folder(tmp_path, TINY_BERT)
    assert VisualizedBGE.from_pretrained(folder, dtype="bfloat16").fingerprint == fingerprint
    state = state_dict(TINY_BERT)
    state["bge_pooler.dense.bias"] += 1  # no embedding depends on it
    safetensors.torch.save_file(state, folder / "model.safetensors")
    assert VisualizedBGE.from_pretrained(folder).fingerprint == fingerprint
    state["bge_encoder.layer.1.output.dense.bias"][5] += 2**-20
    safetensors.torch.save_file(state, folder / "model.safetensors")
    changed = VisualizedBGE.from_pretrained(folder).fingerprint
    assert changed["weights_sha256"] != fingerprint["weights_sha256"]


def test_digest_does_not_depend_on_how_the_same_values_are_stored(tmp_path: Path) -> None:
    without_tables = {key: tensor for key, tensor in state_dict(TINY_BERT).items() if ROPE not in key}
    fingerprints = []
    for dtype in (torch.float16, torch.float32, torch.float64):  # the seeded weights are exact in float16
        folder = write_folder(tmp_path / str(dtype), TINY_BERT)
        safetensors.torch.save_file(
            {key: tensor.to(dtype) for key, tensor in without_tables.items()}, folder / "model.safetensors"
        )
        fingerprints.append(VisualizedBGE.from_pretrained(folder).fingerprint)
    assert fingerprints[0] == fingerprints[1] == fingerprints[2]
