"""Positions of tokens in prompts that are padded on the left."""

from __future__ import annotations

import torch


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return each token's place among the tokens of its row, (batch, tokens); padding reads 0.

    Args:
        attention_mask: (batch, tokens), 0 at padding.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def all_positions(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Return the positions of all tokens, (batch, tokens), also where nothing is padded."""
    return positions(torch.ones_like(input_ids) if attention_mask is None else attention_mask)
