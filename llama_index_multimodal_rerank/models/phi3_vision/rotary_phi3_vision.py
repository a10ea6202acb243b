"""Rotary positions whose short or long factors are chosen for every row of a batch by itself.

Source: LongRoPE (https://arxiv.org/abs/2402.13753) as used by `microsoft/Phi-3-vision-128k-instruct`.
transformers' own module makes one choice for the whole batch, so that a short prompt would get other numbers
next to a long one.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding


class Phi3VisionRotaryEmbedding(Phi3RotaryEmbedding):
    """Cosines and sines of the positions.

    A row gets the long factors if its highest position + 1 exceeds `original_max_position_embeddings`, else
    the short ones; either set is scaled by `attention_scaling`.

    Args:
        config: Text configuration, with `rope_parameters` of type `longrope` or `default`.
    """

    long_inv_freq: torch.Tensor

    def __init__(self, config: Phi3Config) -> None:
        super().__init__(config)
        self.register_buffer("long_inv_freq", self.long_frequencies(), persistent=False)

    def long_frequencies(self) -> torch.Tensor:
        """Return the inverse frequencies for rows beyond the original context, (head_dim / 2,)."""
        if self.rope_type != "longrope":
            return self.inv_freq.clone()
        beyond = self.config.original_max_position_embeddings + 1
        frequencies, _ = ROPE_INIT_FUNCTIONS["longrope"](self.config, self.inv_freq.device, seq_len=beyond)
        return frequencies

    @torch.no_grad()
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines in the dtype of `x`.

        Args:
            x: Any tensor of the wanted device and dtype.
            position_ids: (batch, tokens) or (1, tokens), counting from 0 at each row's first real token.

        Returns:
            Two tensors (batch or 1, tokens, head_dim).
        """
        row_length = position_ids.amax(dim=-1, keepdim=True) + 1  # (batch, 1)
        beyond = row_length > self.config.original_max_position_embeddings
        inv_freq = torch.where(beyond, self.long_inv_freq, self.original_inv_freq)  # (batch, head_dim / 2)
        inv_freq = inv_freq.to(device=x.device, dtype=torch.float)
        angles = (
            position_ids[..., None].to(x.device).float() * inv_freq[:, None, :]
        )  # (batch, tokens, head_dim / 2)
        angles = torch.cat((angles, angles), dim=-1)
        cos = angles.cos() * self.attention_scaling
        sin = angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


def reset_rotary_buffers(module: nn.Module) -> None:
    """Recompute the buffers, which no checkpoint holds, after a model was built without memory."""
    if isinstance(module, Phi3VisionRotaryEmbedding):
        module.long_inv_freq.copy_(module.long_frequencies())
