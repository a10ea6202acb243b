from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import phi3_vision_golden as golden
from transformers import CLIPVisionConfig

from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionConfig


@pytest.fixture
def released() -> dict[str, Any]:
    return json.loads(json.dumps(golden.read_json("config_128k.json")))


def test_reads_the_released_file_as_it_is(tmp_path: Path, released: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(released), encoding="utf-8")
    config = Phi3VisionConfig.from_pretrained(tmp_path)
    native = golden.read_json("native_key_map.json")

    expected_text = native["native_text_config"]
    for name in set(expected_text) - {"rope_parameters", "sliding_window", "eos_token_id"}:
        assert getattr(config, name) == expected_text[name], name
    for name, value in expected_text["rope_parameters"].items():
        assert config.rope_parameters[name] == value, name
    for name, value in native["native_vision_config"].items():
        assert getattr(config.vision_config, name) == value, name
    assert config.dtype == torch.bfloat16
    assert config.embd_layer == released["embd_layer"]
    assert config.img_processor == released["img_processor"]


def test_puts_harmful_entries_right(released: dict[str, Any]) -> None:
    config = Phi3VisionConfig(**released)
    assert config.rope_parameters["rope_type"] == "longrope"
    assert config._attn_implementation is None  # the file asks for flash_attention_2
    assert not hasattr(config, "auto_map")
    assert config.sliding_window is None  # as long as the context
    assert config.eos_token_id == [2, 32000, 32007]
    assert released == golden.read_json("config_128k.json")  # the caller's dictionary is left alone


def test_a_real_sliding_window_and_other_stop_tokens_stay(released: dict[str, Any]) -> None:
    config = Phi3VisionConfig(**{**released, "sliding_window": 2048, "eos_token_id": 32007})
    assert config.sliding_window == 2048
    assert config.eos_token_id == 32007
    assert Phi3VisionConfig(**golden.read_json("config_tiny.json")).eos_token_id == 2  # another vocabulary


def test_reads_phi_3_5_where_it_differs(released: dict[str, Any]) -> None:
    # The same architecture; its window is twice the context, and the rotary type may be spelled natively.
    changed = {**released, "sliding_window": 262144, "_name_or_path": "Phi-3.5-vision-instruct"}
    changed["rope_scaling"] = {**released["rope_scaling"], "type": "longrope"}
    config = Phi3VisionConfig(**changed)
    assert config.sliding_window is None
    assert config.rope_parameters == Phi3VisionConfig(**released).rope_parameters


def test_round_trip(tmp_path: Path, released: dict[str, Any]) -> None:
    config = Phi3VisionConfig(**released)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["model_type"] == "phi3_v"
    assert "auto_map" not in saved
    again = Phi3VisionConfig.from_pretrained(tmp_path)
    names = set(config.to_dict()) - {"transformers_version", "_name_or_path"}
    assert {name: again.to_dict()[name] for name in names} == {name: config.to_dict()[name] for name in names}
    assert isinstance(again.vision_config, CLIPVisionConfig)


def test_overriding_a_context_length_moves_the_scaling_along(
    tmp_path: Path, released: dict[str, Any]
) -> None:
    Phi3VisionConfig(**released).save_pretrained(tmp_path)
    config = Phi3VisionConfig(
        **{
            **json.loads((tmp_path / "config.json").read_text(encoding="utf-8")),
            "original_max_position_embeddings": 8192,
        }
    )
    assert config.rope_parameters["original_max_position_embeddings"] == 8192
    assert config.rope_parameters["factor"] == 131072 / 8192


def test_defaults_are_the_released_sizes(released: dict[str, Any]) -> None:
    config = Phi3VisionConfig()
    for name in ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"):
        assert getattr(config, name) == released[name], name
    assert config.vision_config.num_hidden_layers == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"embd_layer": {"hd_transform_order": "glb_sub"}},
            r"hd_transform_order'\] is 'glb_sub'; only 'sub_glb'",
        ),
        ({"embd_layer": {"projection_cls": "linear"}}, r"projection_cls'\] is 'linear'; only 'mlp'"),
        ({"vision_config": {"image_size": 224, "patch_size": 14}}, "image_size=224 and patch_size=14"),
        ({"img_processor": {"image_dim_out": 768}}, "image_dim_out'] is 768, but .* hidden_size is 1024"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rotary type is 'yarn'"),
        ({"rope_scaling": {"type": "su", "short_factor": [1.0] * 48}}, "lack long_factor"),
    ],
)
def test_what_is_not_supported_is_refused(
    changes: dict[str, Any], message: str, released: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        Phi3VisionConfig(**{**released, **changes})
