"""The cache of keys and values goes in and out by either of its names, without a warning on any release."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.drawing import draw
from transformers import DynamicCache

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.models.phi3_vision.cache_argument import (
    CACHE_ARGUMENT,
    CACHE_NAMES,
    output_cache,
    pop_cache,
)


@pytest.fixture
def inputs(processor: Phi3VisionProcessor) -> dict[str, Any]:
    return dict(processor("<|image_1|> what?", draw("one tile"), num_crops=1))


@pytest.mark.parametrize("name", CACHE_NAMES)
@torch.no_grad()
def test_forward_takes_either_name(
    name: str, model: Phi3VisionForConditionalGeneration, inputs: dict[str, Any]
) -> None:
    expected = model(**inputs).logits[:, -1:]
    ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask")
    cache = DynamicCache()
    model(ids[:, :-1], **inputs, attention_mask=mask[:, :-1], **{name: cache})
    assert cache.get_seq_length() == ids.shape[1] - 1
    output = model(ids[:, -1:], attention_mask=mask, use_cache=True, **{name: cache})
    assert output_cache(output) is cache
    assert cache.get_seq_length() == ids.shape[1]
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_generate_takes_either_name_and_goes_on_from_it(
    name: str, model: Phi3VisionForConditionalGeneration, inputs: dict[str, Any]
) -> None:
    plain = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    cache = DynamicCache()
    with torch.no_grad():
        model(**{**inputs, "input_ids": inputs["input_ids"][:, :-1], "attention_mask": None}, cache=cache)
    seen: list[int] = []
    hook = model.model.vision_embed_tokens.register_forward_hook(lambda *_: seen.append(1))
    text = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    seen.clear()
    found = model.generate(
        **text, image_features=features, max_new_tokens=6, do_sample=False, **{name: cache}
    )
    hook.remove()
    assert found.tolist() == plain.tolist()
    assert not seen  # no picture is looked at again


def test_two_caches_are_refused(model: Phi3VisionForConditionalGeneration, inputs: dict[str, Any]) -> None:
    one, other = DynamicCache(), DynamicCache()
    with pytest.raises(ValueError, match="two caches were given"):
        model(**inputs, cache=one, past_key_values=other)
    with pytest.raises(ValueError, match="two caches were given"):
        model.generate(**inputs, cache=one, past_key_values=other)
    assert pop_cache({"cache": one, "past_key_values": one}) is one
    assert pop_cache({"cache": None}) is None


def test_the_name_is_that_of_the_installed_release() -> None:
    import transformers

    release = tuple(map(int, transformers.__version__.split(".")[:2]))
    assert ("cache" if release >= (5, 24) else "past_key_values") == CACHE_ARGUMENT


SCRIPT = """
import sys, warnings
warnings.simplefilter("error", FutureWarning)
import torch
from transformers import AutoTokenizer
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionForConditionalGeneration
model = Phi3VisionForConditionalGeneration.from_pretrained(sys.argv[1], dtype="float32").eval()
ids = torch.tensor([[1, 5, 6, 7]])
model.generate(ids, max_new_tokens=3, do_sample=False)
out = model.generate(ids, max_new_tokens=3, do_sample=False, cache_implementation="static")
"""


def test_nothing_is_said_on_the_screen(tiny_checkpoint: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_checkpoint)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in (done.stdout + done.stderr).lower()
