"""What the demo's embedder is trained for: answers close to queries, attributes to be read off both."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGEModel
from llama_index_multimodal_rerank.models.visualized_bge.processing import normalize_crops

from .batches import UNKNOWN, Batch, augment

MAX_SCALE = 60.0
ATTRIBUTE_WEIGHT = 0.5


class AttributeHeads(nn.Module):
    """Linear classifiers of kind, surface and colour, for training alone.

    Args:
        dim: length of the embeddings they read.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(dim, len(names)) for names in (KINDS, SURFACES, COLOURS))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy over all known labels.

        Args:
            embeddings: (batch, dim).
            labels: kind, surface and colour, UNKNOWN where they cannot be known, (batch, 3).
        """
        loss = embeddings.new_zeros(())
        for head, column in zip(self.heads, labels.unbind(1), strict=True):
            total = F.cross_entropy(head(embeddings), column, ignore_index=UNKNOWN, reduction="sum")
            # a mean over no labels would not be a number
            loss = loss + total / (column != UNKNOWN).sum().clamp(min=1)
        return loss


class Objective(nn.Module):
    """The loss of a batch, and the weights that it trains.

    Args:
        model: the model; the logarithm of the similarities' scale is its ``logit_scale``.
    """

    def __init__(self, model: VisualizedBGEModel) -> None:
        super().__init__()
        self.model = model
        dim = model.config.text.hidden_size
        self.query_heads, self.target_heads = AttributeHeads(dim), AttributeHeads(dim)
        # The tower learns surfaces in half the steps if it hears of them without the text encoder between.
        self.vision_heads = AttributeHeads(dim)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a batch, and figures: its parts, share of first places, scale."""
        queries = embed_queries(self.model, batch)
        targets, patches = embed_targets(self.model, batch)
        scale = self.model.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()
        logits = scale * F.normalize(queries, dim=-1) @ F.normalize(targets, dim=-1).T
        logits = logits.masked_fill(other_answers(batch.wanted, batch.target_labels), float("-inf"))
        own = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        attributes = self.query_heads(queries, batch.told) + self.target_heads(targets, batch.target_labels)
        seen = self.vision_heads(patches, batch.target_labels)
        first_places = (logits.detach().argmax(dim=1) == own).float().mean()
        figures = {
            "contrast": contrast.item(),
            "attributes": attributes.item() / 2,
            "seen": seen.item(),
            "first_places": first_places.item(),
            "scale": scale.item(),
        }
        return contrast + ATTRIBUTE_WEIGHT * (attributes / 2 + seen), figures


def other_answers(wanted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mark products that answer a query they were not drawn for: neither right nor wrong.

    Args:
        wanted: kind, surface and colour, UNKNOWN where any will do, (batch, 3).
        labels: of the products, (batch, 3).

    Returns:
        bool, (queries, products).
    """
    same = wanted[:, None] == labels[None]  # (queries, products, 3)
    answers = (same | (wanted[:, None] == UNKNOWN)).all(dim=-1)
    return answers & ~torch.eye(len(wanted), dtype=torch.bool, device=wanted.device)


def embed_queries(model: VisualizedBGEModel, batch: Batch) -> torch.Tensor:
    """Return embeddings of the queries, not normalised, (batch, dim)."""
    parts = []
    if len(batch.query_ids):
        pixels = normalize_crops(augment(batch.query_pixels, batch.query_theta, batch.query_gain))
        parts.append(model(batch.query_ids, batch.query_mask, pixels))
    if len(batch.text_ids):
        parts.append(model(batch.text_ids, batch.text_mask))
    return torch.cat(parts)


def embed_targets(model: VisualizedBGEModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings of the products, not normalised, and means of their patches; (batch, dim) each."""
    pixels = normalize_crops(augment(batch.target_pixels, batch.target_theta, batch.target_gain))
    kept: list[torch.Tensor] = []
    hook = model.visual_proj.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    with hook:
        embeddings = model(batch.empty_ids, torch.ones_like(batch.empty_ids), pixels)
    return embeddings, kept[0].mean(dim=1)
