"""Attention of encoders: torch's fused kernel, and what is faster than it on CPUs in bfloat16."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

TRANSFORMERS_NAME = "llama_index_multimodal_rerank"
"""Name under which transformers' layers find :func:`attend`, once :func:`register_attention` was called."""

# Scores are held for all heads at once, so memory grows with the square of the length. From about here on
# torch's kernel, which does not hold them, is as fast.
_MOST_KEYS = 512


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Softmax attention, scaled by the root of the heads' width.

    Args:
        query: (batch, heads, queries, width).
        key: (batch, heads, keys, width).
        value: as ``key``.
        mask: bool, True where a key counts, broadcastable to (batch, heads, queries, keys); None: all count.
        dropout: probability.

    Returns:
        (batch, heads, queries, width).
    """
    if _products_are_faster(query, key) and not dropout:
        scores = (query * query.shape[-1] ** -0.5) @ key.contiguous().transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill_(~mask, float("-inf"))
        mixed: torch.Tensor = scores.softmax(-1) @ value
        return mixed
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)


def _products_are_faster(query: torch.Tensor, key: torch.Tensor) -> bool:
    # torch's kernel for CPUs multiplies many small blocks, which oneDNN does slowly in bfloat16: two batched
    # products over whole heads take two thirds of its time at 200 keys, and half at one query.
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[2] <= _MOST_KEYS
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def register_attention() -> str:
    """Let layers of transformers use :func:`attend`; return the name to give as ``attn_implementation``."""
    from transformers import AttentionInterface

    AttentionInterface.register(TRANSFORMERS_NAME, _transformers_attention)
    return TRANSFORMERS_NAME


def _transformers_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    **_options: object,
) -> tuple[torch.Tensor, None]:
    """Return what layers of transformers expect: (batch, queries, heads, width), and no weights."""
    return attend(query, key, value, attention_mask, dropout=dropout).transpose(1, 2), None
