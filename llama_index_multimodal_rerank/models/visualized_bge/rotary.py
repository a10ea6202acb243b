"""Rotary positions of the vision tower: timm's arithmetic, in a few passes over memory instead of a dozen.

timm turns pairs of neighbouring values by negating, stacking, multiplying twice and adding, for the tokens
behind the class token, and joins the parts. A pair that is turned is a product of complex numbers, and a
class token is one that is turned by nothing: so it is one product, and the same numbers to rounding.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from ..attention import attend


def rotary_factors(table: torch.Tensor, heads: int) -> torch.Tensor:
    """Return what queries and keys are multiplied by, for all heads and the class token.

    Args:
        table: timm's: sines, then cosines, each twice in a row, (patches, 2 * head width).
        heads: attention heads.

    Returns:
        Cosines and sines, float32, (1 + patches, heads * head width / 2, 2); the first row turns by nothing.
    """
    sines, cosines = (half[:, ::2] for half in table.float().chunk(2, -1))
    turns = torch.stack([cosines, sines], -1)  # (patches, head width / 2, 2)
    # made on the device: a copy from the host could not be captured in a CUDA graph
    still = torch.stack([torch.ones_like(sines[:1]), torch.zeros_like(sines[:1])], -1)
    return torch.cat([still, turns]).repeat(1, heads, 1)


def rotate(values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys by their positions, in float32.

    Args:
        values: (batch, tokens, heads * head width); overwritten where they are float32.
        factors: from :func:`rotary_factors`.

    Returns:
        Of the shape and dtype of ``values``.
    """
    pairs = values.float().view(*values.shape[:-1], -1, 2)  # (batch, tokens, heads * head width / 2, 2)
    if values.device.type in ("cpu", "cuda") and not torch.compiler.is_compiling():
        torch.view_as_complex(pairs).mul_(torch.view_as_complex(factors))
    else:  # compilers do not take complex numbers apart, and not every device has them
        (x, y), (cosines, sines) = pairs.unbind(-1), factors.unbind(-1)
        pairs = torch.stack([x * cosines - y * sines, y * cosines + x * sines], -1)
    turned: torch.Tensor = pairs.flatten(-2).to(values.dtype)
    return turned


@cache
def rotary_attention_class() -> Any:
    """Return timm's ``EvaAttention``, which takes :func:`rotary_factors` for ``rope``."""
    from timm.models.eva import EvaAttention

    class RotaryAttention(EvaAttention):  # type: ignore[misc, unused-ignore]
        """Attention with separate projections and an inner norm, as EVA-02 has it."""

        def forward(
            self, x: torch.Tensor, rope: torch.Tensor, attn_mask: None = None, is_causal: bool = False
        ) -> torch.Tensor:
            """Return (batch, tokens, width) for the same, with factors of :func:`rotary_factors`."""
            query, key, value = (
                each.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (batch, heads, tokens, head width)
                for each in (rotate(self.q_proj(x), rope), rotate(self.k_proj(x), rope), self.v_proj(x))
            )
            mixed = attend(query, key, value).transpose(1, 2).flatten(2)
            return torch.as_tensor(self.proj(self.norm(mixed)))

    return RotaryAttention


def attention_of(blocks: nn.ModuleList, **arguments: Any) -> None:
    """Put attention of :func:`rotary_attention_class` into timm's blocks; parameters keep their names."""
    for block in blocks:
        block.attn = rotary_attention_class()(**arguments)
