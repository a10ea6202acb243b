"""The head of MagicLens: from the outputs of the two towers to one embedding.

Paper: https://arxiv.org/abs/2403.19651, section 3.2 (the encoder over both embeddings, and the attention
pooling). Its layers follow the conventions of the published weights: norms store the deviation of their scale
from 1, attention logits are capped, and the pooler scales every channel of its query by itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from .configuration import FusionConfig

LOGIT_CAP = 50.0
NORM_EPS = 1e-6


class OffsetLayerNorm(nn.Module):
    """LayerNorm whose stored scale is the deviation from 1.

    Args:
        width: of the last dimension.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise over the last dimension, (..., width)."""
        return F.layer_norm(x, self.scale.shape, 1 + self.scale, self.bias, NORM_EPS)


def capped_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend with logits that tanh keeps within -50 to 50.

    Args:
        query: already scaled, (batch, heads, queries, head width).
        key: (batch, heads, keys, head width).
        value: (batch, heads, keys, head width).

    Returns:
        The heads side by side, (batch, queries, heads * head width).
    """
    logits = query @ key.transpose(-1, -2)  # (batch, heads, queries, keys)
    probs = torch.softmax(LOGIT_CAP * torch.tanh(logits / LOGIT_CAP), dim=-1)
    return (probs @ value).transpose(1, 2).flatten(2)


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Turn (batch, tokens, heads * head width) into (batch, heads, tokens, head width)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


class SelfAttention(nn.Module):
    """Self-attention over the two tokens, without a mask.

    Args:
        config: the head.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.post = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what each token takes from both, (batch, 2, width)."""
        query, key, value = (
            split_heads(layer(x), self.num_heads) for layer in (self.query, self.key, self.value)
        )  # (batch, heads, 2, head width)
        attended = capped_attention(query * query.shape[-1] ** -0.5, key, value)
        return torch.as_tensor(self.post(attended))


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them, behind a norm.

    Args:
        config: the head.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm = OffsetLayerNorm(config.hidden_size)
        self.layer1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.layer2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the tokens, (batch, 2, width)."""
        return torch.as_tensor(self.layer2(F.relu(self.layer1(self.norm(x)))))


class FusionLayer(nn.Module):
    """One pre-norm layer of the encoder.

    Args:
        config: the head.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm = OffsetLayerNorm(config.hidden_size)
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the tokens with what attention and feed-forward add, (batch, 2, width)."""
        x = x + self.attention(self.norm(x))
        return torch.as_tensor(x + self.feed_forward(x))


class AttentionPooler(nn.Module):
    """Pools the two tokens with one learned query; no residual, no feed-forward.

    Args:
        config: the head.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.pooler_size
        self.num_heads = config.num_attention_heads
        self.learned_query = nn.Parameter(torch.empty(1, width))
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.per_dim_scale = nn.Parameter(torch.empty(inner // self.num_heads))
        self.post = nn.Linear(inner, width)
        self.norm = OffsetLayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool the tokens, (batch, 2, width) to (batch, width)."""
        query = split_heads(self.query(self.learned_query[None]), self.num_heads)  # (1, heads, 1, head width)
        # 1 / ln 2: softplus(0) is ln 2, so a stored 0 leaves the usual scale
        scale = F.softplus(self.per_dim_scale) / (math.log(2) * math.sqrt(query.shape[-1]))
        key, value = (split_heads(layer(x), self.num_heads) for layer in (self.key, self.value))
        pooled = capped_attention(query * scale, key, value)  # (batch, 1, inner)
        return torch.as_tensor(self.norm(self.post(pooled[:, 0])))


class FusionHead(nn.Module):
    """The encoder over the two embeddings, and the pooler.

    Args:
        config: the head.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(config) for _ in range(config.num_hidden_layers))
        self.pooler = AttentionPooler(config)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Fuse the outputs of the towers.

        Args:
            image: not normalised, (batch, width).
            text: not normalised, (batch, width).

        Returns:
            The embedding, not normalised, (batch, width).
        """
        x = torch.stack([image, text], dim=1)  # (batch, 2, width); nothing here knows about their order
        for layer in self.layers:
            x = layer(x)
        return torch.as_tensor(self.pooler(x))
