"""Where the decoder should look: half of a layer's heads are taught it, in training only.

What must be looked at is known - a label's cell, the words that say what is wanted, the labels that fit
best - but to find it by chance takes most of a training: until then every candidate looks like the mean of
all. They are taught to look at all of a cell evenly: the tower was trained to show what a picture is in the
mean of its patches, of which a single one knows little.

Heads compare, too: told to look at one place if two attributes are the same and at another one if not, a head
learns it in the product of its query and key, where layers of weights have to learn every pair.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import Cache
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb

from llama_index_multimodal_rerank.models.hd_geometry import TOKENS_PER_SIDE
from llama_index_multimodal_rerank.models.phi3_vision.modeling_phi3_vision import Phi3VisionModel
from llama_index_multimodal_rerank.reranking.sheet_layout import Box

from .sheets import tokens_of

HEADS = 3
"""Of a layer, that are taught where to look."""

_LINES = TOKENS_PER_SIDE * (TOKENS_PER_SIDE + 1)  # every line ends in a token of its own


def attention_loss(
    decoder: Phi3VisionModel,
    layer: int,
    hidden: torch.Tensor,
    cache: Cache,
    rows: torch.Tensor,
    places: torch.Tensor,
    wanted: torch.Tensor,
    barred: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return how far attention is from lying evenly where it should, as Kullback-Leibler divergence.

    Args:
        decoder: the model.
        layer: which layer.
        hidden: what it is given, (prompts, tokens, width).
        cache: keys of all tokens, those before ``hidden`` included.
        rows: (queries,), prompt of each token that looks.
        places: (queries,), its place in ``hidden``.
        wanted: (queries, heads or 1, keys), the tokens that should be looked at; at least one each.
        barred: (queries, keys), tokens that do not count.
    """
    attention, norm = decoder.layers[layer].self_attn, decoder.layers[layer].input_layernorm
    keys = cache.layers[layer].keys[rows, :HEADS]  # (queries, heads, keys, head width)
    width = keys.shape[-1]
    queries = attention.qkv_proj(norm(hidden[rows, places]))[:, : HEADS * width]
    queries = queries.view(-1, HEADS, 1, width)
    position = keys.shape[2] - hidden.shape[1] + places
    cos, sin = decoder.rotary_emb(queries, position[:, None])
    queries, _ = apply_rotary_pos_emb(queries, queries, cos, sin)
    scores = (queries * keys).sum(-1) * attention.scaling  # (queries, heads, keys)
    out = torch.arange(keys.shape[2], device=keys.device) > position[:, None]  # (queries, keys)
    if barred is not None:
        out = out | barred
    shares = scores.masked_fill(out[:, None], -1e4).log_softmax(-1)
    even = wanted / wanted.sum(-1, keepdim=True)  # (queries, heads or 1, keys)
    return (even * (even.clamp_min(1e-9).log() - shares)).sum(-1).mean()


def places_of(box: Box) -> np.ndarray:  # type: ignore[type-arg]
    """Return the places of the tokens that show a box of a picture of one tile, in the second view of it.

    Both views are the same; a head that looks at both needs two distances.
    """
    rows, columns = tokens_of(box)
    first = _LINES + 1  # one token stands between the views
    places: np.ndarray = (first + rows[:, None] * (TOKENS_PER_SIDE + 1) + columns).reshape(-1)  # type: ignore[type-arg]
    return places
