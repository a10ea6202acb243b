"""What is computed by fewer or other operations than the authors' code: the same numbers, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.published_model import as_published
from support.visualized_bge_golden import TINY
from torch.nn import functional as F

from llama_index_multimodal_rerank.models import attention
from llama_index_multimodal_rerank.models.attention import attend
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE
from llama_index_multimodal_rerank.models.visualized_bge.rotary import rotary_factors, rotate


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("pictures", [False, True])
def test_first_token_of_the_whole_model(
    load: Callable[[str], VisualizedBGE], model_folder: Callable[[str], Path], model: str, pictures: bool
) -> None:
    """timm's tower and transformers' encoder, every layer in full, read at the first token."""
    bge = load(model)
    published = as_published(
        VisualizedBGE.from_pretrained(model_folder(model), device="cpu", dtype="float32").model
    )
    ids, mask = bge.tokenizer.pad(bge.tokenizer(["the red cat sleeps under the old tree", "cat", ""]))
    side = bge.model.config.vision.image_size
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0)) if pictures else None
    with torch.inference_mode():
        torch.testing.assert_close(
            bge.model(ids, mask, pixels), published(ids, mask, pixels), atol=2e-5, rtol=1e-4
        )
        # Nothing padded, no mask: the same as a mask of ones.
        row = ids[:1]
        own = None if pixels is None else pixels[:1]
        torch.testing.assert_close(bge.model(row, None, own), bge.model(row, torch.ones_like(row), own))


def test_a_pair_is_turned_by_the_angle_of_its_position() -> None:
    quarter = torch.tensor(
        [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    )  # sines, then cosines: 90 and 0 degrees
    values = torch.tensor(
        [[[1.0, 2.0, 3.0, 4.0] * 2, [1.0, 2.0, 3.0, 4.0] * 2]]
    )  # a class token, a patch; two heads
    turned = rotate(values.clone(), rotary_factors(quarter, heads=2))
    assert turned.tolist() == [[[1, 2, 3, 4] * 2, [-2, 1, 3, 4] * 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_rotation_has_the_same_arithmetic(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(5, 4, generator=generator).repeat_interleave(2, -1)
    factors = rotary_factors(torch.cat([angles.sin(), angles.cos()], -1), heads=3)
    values = torch.randn(2, 6, 24, generator=generator).to(dtype)
    eager = rotate(values.clone(), factors)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(values.clone(), factors), eager)
    assert eager.dtype == dtype


@pytest.mark.parametrize("queries", [1, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_by_products_is_attention(queries: int, masked: bool) -> None:
    """In bfloat16 on a CPU; scores and weights are rounded to it, so by no more than its eight bits."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8, generator=generator).bfloat16() for n in (queries, 7, 7))
    mask = torch.arange(7) < torch.tensor([7, 4])[:, None, None, None] if masked else None
    with torch.inference_mode():
        assert attention._products_are_faster(query, key)
        found = attend(query, key, value, mask)
        exact = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)
    torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=0.02)


def test_long_texts_and_training_take_torchs_kernel() -> None:
    """Scores of 8192 tokens would fill the memory; torch's kernel holds no scores."""
    query = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert not attention._products_are_faster(query, query.expand(1, 1, 513, 8))
        assert not attention._products_are_faster(query.float(), query.float())
    assert not attention._products_are_faster(query, query)  # gradients are wanted
