from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import phi3_vision_golden as golden
from transformers import PreTrainedTokenizerFast

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionConfig,
    Phi3VisionForConditionalGeneration,
    Phi3VisionImageProcessor,
    Phi3VisionProcessor,
)

HERE = Path(__file__).parent
LoadTiny = Callable[..., Phi3VisionForConditionalGeneration]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in config.getoption("markexpr"):
        return
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="minutes and gigabytes; run it with -m slow"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tiny model gains nothing from threads, and loses much where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden.write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def load_tiny(tiny_checkpoint: Path) -> LoadTiny:
    """Load the tiny model, with changed configuration entries and loading options."""

    def load(overrides: dict[str, Any] | None = None, **options: Any) -> Phi3VisionForConditionalGeneration:
        config = Phi3VisionConfig(**{**golden.read_json("config_tiny.json"), **(overrides or {})})
        model = Phi3VisionForConditionalGeneration.from_pretrained(tiny_checkpoint, config=config, **options)
        # The reference was recorded without a stop token.
        model.generation_config.eos_token_id = None
        return model

    return load


@pytest.fixture(scope="session")
def model(load_tiny: LoadTiny) -> Phi3VisionForConditionalGeneration:
    return load_tiny()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(golden.GOLDEN / "tokenizer")


@pytest.fixture(scope="session")
def processor(tokenizer: PreTrainedTokenizerFast) -> Phi3VisionProcessor:
    return Phi3VisionProcessor(Phi3VisionImageProcessor(), tokenizer)


@pytest.fixture
def case_inputs(processor: Phi3VisionProcessor) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the model inputs of a recorded case."""

    def inputs(case: dict[str, Any]) -> dict[str, Any]:
        if "seeded_pixels" in case:
            pixels = case["seeded_pixels"]
            values = golden.seeded_weights.generate_input(pixels["key"], pixels["shape"], pixels["seed"])
            ids = torch.tensor([golden.expand_runs(case["input_ids_rle"])])
            return {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "pixel_values": torch.from_numpy(values),
                "image_sizes": torch.tensor(pixels["image_sizes_hw"]),
            }
        images = golden.pictures(case["images"]) or None
        return dict(processor(case["text"], images, num_crops=case["num_crops"]))

    return inputs
