"""Configurations: the released ones, the file format, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.visualized_bge_golden import CASES, FULL_BASE, FULL_M3, NO_FULL_SIZE, config

from llama_index_multimodal_rerank.models.visualized_bge import BASE_EN_V1_5, M3, VisualizedBGEConfig


@pytest.mark.parametrize(("released", "model"), [(BASE_EN_V1_5, FULL_BASE), (M3, FULL_M3)])
def test_released_configurations(released: VisualizedBGEConfig, model: str | None) -> None:
    if model is None:
        pytest.skip(NO_FULL_SIZE)
    reference = config(model)
    assert released.text == reference.text
    assert released.vision == reference.vision


@pytest.mark.parametrize("model", CASES["models"])
def test_limits(model: str) -> None:
    limits = CASES["models"][model]["limits"]
    assert config(model).text.max_tokens == limits["text_tokens_max"]
    assert config(model).max_tokens_with_image == limits["text_tokens_with_image_max"]
    assert config(model).vision.num_patches == limits["image_tokens"]


@pytest.mark.parametrize("released", [BASE_EN_V1_5, M3])
def test_file_round_trip(tmp_path: Path, released: VisualizedBGEConfig) -> None:
    released.to_json_file(tmp_path / "config.json")
    assert VisualizedBGEConfig.from_json_file(tmp_path / "config.json") == released
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "visualized_bge"


def test_configuration_of_the_text_model_alone() -> None:
    fields = {**dataclasses.asdict(M3.text), "architectures": ["XLMRobertaModel"], "torch_dtype": "float32"}
    assert VisualizedBGEConfig.from_dict(fields) == M3


def changed(**changes: Any) -> dict[str, Any]:
    return {**BASE_EN_V1_5.to_dict(), **changes}


def part(name: str, **changes: Any) -> dict[str, Any]:
    return changed(**{name: {**BASE_EN_V1_5.to_dict()[name], **changes}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(model_type="clip"), "model_type 'clip'; expected 'visualized_bge'"),
        ({}, "model_type None"),
        (changed(surprise=1), "config.json has unknown fields surprise"),
        ({"model_type": "visualized_bge"}, "config.json lacks name, text_config, vision_config"),
        (part("text_config", model_type="gpt2"), "model_type 'gpt2'.*'bert' or 'xlm-roberta'"),
        (part("text_config", surprise=1), "TextConfig has unknown fields surprise; known are"),
        (part("vision_config", rope=False), "VisionConfig has unknown fields rope"),
        (part("vision_config", patch_size=15), "image_size 224 is not a multiple of patch_size 15"),
        (part("vision_config", num_attention_heads=7), "vision hidden_size 768 is not a multiple of its 7"),
        (part("text_config", num_attention_heads=5), "text hidden_size 768 is not a multiple of its 5"),
        (part("text_config", max_position_embeddings=197), "197 text positions do not hold the 196"),
        ({"model_type": "bert"}, "TextConfig lacks hidden_size"),
    ],
)
def test_what_is_refused(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message) as caught:
        VisualizedBGEConfig.from_json_file(tmp_path / "config.json")
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_no_json_object(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        VisualizedBGEConfig.from_json_file(tmp_path / "config.json")
