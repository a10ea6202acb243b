"""Visualized BGE computed as its authors' code does: by timm's and transformers' layers, every token."""

from __future__ import annotations

from functools import partial

import torch
from timm.models.eva import EvaAttention

from llama_index_multimodal_rerank.models.visualized_bge.modeling import VisualizedBGEModel


def as_published(model: VisualizedBGEModel) -> VisualizedBGEModel:
    """Have a model run every layer in full, with timm's rotary positions and torch's attention; return it."""
    for block in model.vision.eva.blocks:
        block.attn.forward = partial(EvaAttention.forward, block.attn)
    model.text.config._attn_implementation = "sdpa"
    model.vision.forward = partial(_patches, model)  # type: ignore[method-assign]
    model.forward = partial(_embed, model)  # type: ignore[method-assign]
    return model


def _patches(model: VisualizedBGEModel, pixel_values: torch.Tensor) -> torch.Tensor:
    (tokens,) = model.vision.eva.forward_intermediates(
        pixel_values, indices=1, norm=False, output_fmt="NLC", intermediates_only=True
    )
    return torch.as_tensor(tokens)


def _embed(
    model: VisualizedBGEModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    pixel_values: torch.Tensor | None = None,
) -> torch.Tensor:
    return model.last_hidden_state(input_ids, attention_mask, pixel_values)[:, 0]
