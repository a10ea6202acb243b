from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import phi3_vision_golden as golden
from support.drawing import draw
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionConfig,
    Phi3VisionForConditionalGeneration,
    Phi3VisionImageProcessor,
    Phi3VisionProcessor,
)


@pytest.fixture
def never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks on the terminal whether to run remote code."""

    def refuse(prompt: str = "") -> str:
        raise AssertionError(f"asked: {prompt}")

    monkeypatch.setattr(builtins, "input", refuse)


@pytest.fixture
def published_folder(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """The tiny model with every file named and worded as the published repository has it."""
    (tmp_path / "model.safetensors").symlink_to(tiny_checkpoint / "model.safetensors")
    published = golden.read_json("config_128k.json")
    config = {
        **golden.read_json("config_tiny.json"),
        "auto_map": published["auto_map"],
        "_attn_implementation": published["_attn_implementation"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    preprocessor = {
        "auto_map": {
            "AutoProcessor": "processing_phi3_v.Phi3VProcessor",
            "AutoImageProcessor": "image_processing_phi3_v.Phi3VImageProcessor",
        },
        "num_crops": 16,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Phi3VImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "processor_class": "Phi3VProcessor",
        "num_img_tokens": 144,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).symlink_to(golden.GOLDEN / "tokenizer" / name)
    return tmp_path


@pytest.mark.usefixtures("never_asked")
def test_auto_classes_take_the_published_files(published_folder: Path) -> None:
    assert type(AutoConfig.from_pretrained(published_folder)) is Phi3VisionConfig
    for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
        assert type(auto.from_pretrained(published_folder)) is Phi3VisionForConditionalGeneration
    image_processor = AutoImageProcessor.from_pretrained(published_folder)
    assert isinstance(image_processor, Phi3VisionImageProcessor)
    processor = AutoProcessor.from_pretrained(published_folder)
    assert isinstance(processor, Phi3VisionProcessor)
    assert type(processor.tokenizer) is PreTrainedTokenizerFast
    assert AutoProcessor.from_pretrained(published_folder, num_crops=4).image_processor.num_crops == 4
    case = golden.image_case()
    ids = processor(case["text"], golden.pictures(case["images"]), num_crops=case["num_crops"])["input_ids"]
    assert ids.tolist() == [golden.expand_runs(case["input_ids_rle"])]


@pytest.mark.usefixtures("never_asked")
def test_auto_classes_take_what_was_saved(
    published_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("saved")
    processor = AutoProcessor.from_pretrained(published_folder, num_crops=2)
    model = AutoModelForImageTextToText.from_pretrained(published_folder)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    again = AutoProcessor.from_pretrained(folder)
    assert isinstance(again, Phi3VisionProcessor)
    assert again.image_processor.num_crops == 2
    loaded = AutoModelForImageTextToText.from_pretrained(folder)
    inputs = again("<|image_1|>?", draw("one tile"))
    with torch.no_grad():
        assert (loaded(**inputs).logits - model(**inputs).logits).abs().max() <= golden.SAME_LOGITS
    written = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.json"))
    assert "auto_map" not in written


@pytest.mark.usefixtures("never_asked")
@pytest.mark.skipif(not golden.REFERENCE.exists(), reason=golden.NO_REFERENCE)
def test_auto_classes_take_the_real_published_files() -> None:
    config = AutoConfig.from_pretrained(golden.REFERENCE)
    assert type(config) is Phi3VisionConfig
    assert config.rope_parameters["rope_type"] == "longrope"
    processor = AutoProcessor.from_pretrained(golden.REFERENCE)
    assert isinstance(processor, Phi3VisionProcessor)
    assert processor.image_processor.num_crops == 16
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert type(model) is Phi3VisionForConditionalGeneration
    assert model.generation_config.eos_token_id == [2, 32000, 32007]


def test_importing_the_package_costs_no_torchvision_and_no_llama_index() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import llama_index_multimodal_rerank.models.phi3_vision as m\n"
        "from PIL import Image\n"
        "m.Phi3VisionImageProcessor(num_crops=1)(Image.new('RGB', (20, 30)))\n"
        "assert 'llama_index.core' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
