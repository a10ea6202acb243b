from __future__ import annotations

from typing import Any

import pytest
from support import phi3_vision_golden as golden

from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionProcessor

pytestmark = pytest.mark.skipif(not golden.REFERENCE.exists(), reason=golden.NO_REFERENCE)
RECORDED = golden.read_json("tokenizer_128k_cases.json")


@pytest.fixture(scope="module")
def published() -> Phi3VisionProcessor:
    return Phi3VisionProcessor.from_pretrained(golden.REFERENCE)


def test_special_tokens(published: Phi3VisionProcessor) -> None:
    tokenizer = published.tokenizer
    assert len(tokenizer) == RECORDED["length"]
    for name in ("eos_token", "pad_token", "bos_token", "unk_token"):
        assert [getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")] == RECORDED[name], name
    assert tokenizer.convert_tokens_to_ids(RECORDED["image_token"][0]) == RECORDED["image_token"][1]


@pytest.mark.parametrize("case", RECORDED["tokenize"], ids=lambda case: repr(case["text"]))
def test_tokenize_and_decode(case: dict[str, Any], published: Phi3VisionProcessor) -> None:
    ids = published(case["text"])["input_ids"]
    assert ids.tolist() == [case["input_ids"]]
    assert published.decode(ids[0]) == case["decoded"]
    assert published.decode(ids[0], skip_special_tokens=True) == case["decoded_skip_special"]


@pytest.mark.parametrize("case", RECORDED["prompts"], ids=lambda case: case["text"][:40])
def test_prompts(case: dict[str, Any], published: Phi3VisionProcessor) -> None:
    ids = published(case["text"], golden.pictures(case["images"]), num_crops=case["num_crops"])["input_ids"]
    expected = golden.expand_runs(case["input_ids_rle"])
    assert len(expected) == case["length"]
    assert ids.tolist() == [expected]
