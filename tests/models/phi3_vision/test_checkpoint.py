from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support import phi3_vision_golden as golden
from support.drawing import draw
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionConfig,
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)


def released_names(manifest: str) -> dict[str, list[int]]:
    tensors = golden.read_json(manifest)["tensors"]
    return {name: entry["shape"] for name, entry in tensors.items() if entry["in_checkpoint"]}


def saved_shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    return shapes


def test_the_592_released_names_load_with_their_shapes() -> None:
    """At full size, without memory: meta tensors in, meta parameters out."""
    names = released_names("manifest_128k.json")
    assert len(names) == 592
    weights = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in names.items()}
    assert sum(weight.nbytes for weight in weights.values()) == 8293242880  # the published index's total_size
    model, info = Phi3VisionForConditionalGeneration.from_pretrained(
        None,
        config=Phi3VisionConfig(**golden.read_json("config_128k.json")),
        state_dict=weights,
        device_map="meta",
        output_loading_info=True,
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert len(dict(model.named_parameters())) == 592
    assert sum(parameter.numel() for parameter in model.parameters()) == 8293242880 // 2
    # Every parameter is the tensor that the released name belongs to by the recorded map.
    table = golden.read_json("native_key_map.json")["map"]
    parameters = dict(model.named_parameters())
    tower = "model.vision_embed_tokens.img_processor."
    adapter = "model.vision_embed_tokens."
    for name, shape in names.items():
        target = table[name]
        prefix = {"language_model": "", "vision_tower": tower, "image_adapter": adapter}[target["target"]]
        key = prefix + target["key"]
        key = (
            key if key in parameters else name
        )  # releases of transformers differ in the tower's vision_model level
        assert list(parameters[key].shape) == shape, name


@pytest.mark.skipif(not golden.REFERENCE.exists(), reason=golden.NO_REFERENCE)
def test_the_manifest_names_what_the_published_index_lists() -> None:
    index = json.loads((golden.REFERENCE / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"]) == set(released_names("manifest_128k.json"))


def test_saving_writes_the_released_layout(tmp_path: Path, model: Phi3VisionForConditionalGeneration) -> None:
    model.save_pretrained(tmp_path)
    assert saved_shapes(tmp_path) == released_names("manifest_tiny.json")
    original = golden.tiny_state_dict()
    with safe_open(tmp_path / "model.safetensors", "pt") as tensors:
        for name, values in original.items():
            assert torch.equal(tensors.get_tensor(name), values), name


def test_shards_load_and_round_trip(
    tmp_path: Path, model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert saved_shapes(tmp_path) == released_names("manifest_tiny.json")
    again, info = Phi3VisionForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for (name, found), expected in zip(again.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(found, expected), name
    inputs = processor("<|image_1|>?", draw("one tile"), num_crops=1)
    with torch.no_grad():
        assert (again(**inputs).logits - model(**inputs).logits).abs().max() <= golden.SAME_LOGITS


def test_the_second_name_of_the_embedding_is_passed_over(tmp_path: Path, tiny_checkpoint: Path) -> None:
    weights = golden.tiny_state_dict()
    weights["model.vision_embed_tokens.wte.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    _, info = Phi3VisionForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]


def test_pickled_weights_are_not_opened(tmp_path: Path, tiny_checkpoint: Path) -> None:
    torch.save(golden.tiny_state_dict(), tmp_path / "pytorch_model.bin")
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    with pytest.raises(OSError, match="safetensors"):
        Phi3VisionForConditionalGeneration.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="loaded from safetensors only"):
        Phi3VisionForConditionalGeneration.from_pretrained(tmp_path, use_safetensors=False)


def test_attention_is_sdpa_by_default_and_eager_on_request(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = {**golden.read_json("config_tiny.json"), "_attn_implementation": "flash_attention_2"}
    shutil.copy(tiny_checkpoint / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = Phi3VisionForConditionalGeneration.from_pretrained(tmp_path)
    tower = model.model.vision_embed_tokens.img_processor
    assert model.config._attn_implementation == "sdpa"
    assert tower.config._attn_implementation == "sdpa"
    model = Phi3VisionForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    assert model.model.vision_embed_tokens.img_processor.config._attn_implementation == "eager"


def test_dtype_follows_the_file_unless_asked(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = {**golden.read_json("config_tiny.json"), "torch_dtype": "bfloat16"}
    shutil.copy(tiny_checkpoint / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = Phi3VisionForConditionalGeneration.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    # The rotary frequencies stay exact.
    assert model.model.rotary_emb.long_inv_freq.dtype == torch.float32
    model = Phi3VisionForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@torch.no_grad()
def test_device_map_with_offloading_gives_the_same_logits(
    tmp_path: Path, tiny_checkpoint: Path, model: Any, processor: Phi3VisionProcessor
) -> None:
    placement = {
        "model.embed_tokens": "cpu",
        "model.vision_embed_tokens": "disk",
        **{f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(model.config.num_hidden_layers)},
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    }
    offloaded = AutoModelForImageTextToText.from_pretrained(
        tiny_checkpoint, device_map=placement, offload_folder=tmp_path
    )
    assert offloaded.hf_device_map == placement
    assert offloaded.model.layers[1].mlp.down_proj.weight.device.type == "meta"
    inputs = processor("<|image_1|>?", draw("one tile"), num_crops=1)
    assert (offloaded(**inputs).logits - model(**inputs).logits).abs().max() <= golden.SAME_LOGITS


def test_device_map_auto_keeps_blocks_whole(tiny_checkpoint: Path) -> None:
    model = Phi3VisionForConditionalGeneration.from_pretrained(tiny_checkpoint, device_map="auto")
    assert "Phi3DecoderLayer" in model._no_split_modules
    assert "Phi3VisionImageEmbedding" in model._no_split_modules


@register_quantization_config("phi3_vision_test")
class RoundingConfig(QuantizationConfigMixin):
    def __init__(self, **_: Any) -> None:
        self.quant_method = "phi3_vision_test"


@register_quantizer("phi3_vision_test")
class RoundingQuantizer(HfQuantizer):
    """Rounds every linear weight of the decoder to 1/16 after loading."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        return

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and ".layers." in name and "vision" not in name:
                module.weight.data = (module.weight.data * 16).round() / 16
        return model

    def is_serializable(self, **_: Any) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


@torch.no_grad()
def test_a_quantization_config_reaches_its_quantizer(
    tiny_checkpoint: Path, model: Any, processor: Phi3VisionProcessor
) -> None:
    quantized = Phi3VisionForConditionalGeneration.from_pretrained(
        tiny_checkpoint, quantization_config=RoundingConfig()
    )
    assert quantized.is_quantized
    weight = quantized.model.layers[0].mlp.down_proj.weight
    assert torch.equal(weight, (model.model.layers[0].mlp.down_proj.weight * 16).round() / 16)
    inputs = processor("<|image_1|>?", draw("one tile"), num_crops=1)
    assert quantized(**inputs).logits.isfinite().all()
