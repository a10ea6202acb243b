"""Visualized BGE: picture patches and words in one text encoder.

Paper: VISTA: Visualized Text Embedding For Universal Multi-Modal Retrieval, https://arxiv.org/abs/2406.04292
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .vision import EvaTower, import_timm

if TYPE_CHECKING:
    from .configuration import VisualizedBGEConfig


class VisualizedBGEModel(nn.Module):
    """The text encoder with the vision tower in front of it.

    Starts in evaluation mode. ``text.pooler``, ``vision.eva.norm``, ``vision.eva.head`` and ``logit_scale``
    are part of the released files; no embedding depends on them.

    Args:
        config: sizes of both encoders.
    """

    def __init__(self, config: VisualizedBGEConfig) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel, XLMRobertaModel

        self.config = config
        text_config = config.text.to_transformers()
        self.text = (
            BertModel(text_config) if isinstance(text_config, BertConfig) else XLMRobertaModel(text_config)
        )
        # Made on the CPU even while the parameters are on the meta device: no state dict fills them.
        positions = torch.arange(config.text.max_position_embeddings, device="cpu").unsqueeze(0)
        self.text.embeddings.register_buffer("position_ids", positions, persistent=False)
        self.text.embeddings.register_buffer("token_type_ids", torch.zeros_like(positions), persistent=False)
        self.vision = EvaTower(config.vision)
        self.visual_proj = nn.Linear(config.vision.hidden_size, config.text.hidden_size)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.requires_grad_(False)
        self.eval()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed a batch of texts, or of pictures with a text each.

        Args:
            input_ids: token ids with their special tokens, padded on the right, (batch, tokens). A picture
                alone comes with the ids of the empty text.
            attention_mask: 1 for tokens, 0 for padding, (batch, tokens).
            pixel_values: normalised pictures, (batch, 3, side, side), or None for texts alone.

        Returns:
            The last hidden state of the first token, not normalised, (batch, dim).
        """
        if pixel_values is None:
            hidden = self.text.embeddings(input_ids=input_ids, token_type_ids=torch.zeros_like(input_ids))
        else:
            hidden = self._embed_with_image(input_ids, pixel_values)  # (batch, patches + tokens, dim)
            patches = hidden.shape[1] - input_ids.shape[1]
            attention_mask = nn.functional.pad(attention_mask, (patches, 0), value=1)
        return self._encode(hidden, attention_mask)[:, 0]

    def embed_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Turn pictures into tokens of the text encoder, as they stand behind its first token.

        Args:
            pixel_values: normalised pictures, (batch, 3, side, side).

        Returns:
            Token embeddings, (batch, patches, dim).
        """
        embeddings = self.text.embeddings
        tokens = self.visual_proj(self.vision(pixel_values))  # (batch, patches, dim)
        positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        # A row lookup, not the module: for XLM-RoBERTa the first patch takes the padding row like any other.
        tokens = tokens + embeddings.position_embeddings.weight[positions]
        # Patches carry no token type, so the embedding layer of the text model cannot do this.
        return torch.as_tensor(embeddings.LayerNorm(tokens))

    def _embed_with_image(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        image = self.embed_image(pixel_values)  # (batch, patches, dim)
        patches = image.shape[1]
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        positions[1:] += patches  # first token 0, then the patches, then the other tokens
        text = self.text.embeddings(
            input_ids=input_ids,
            token_type_ids=torch.zeros_like(input_ids),
            position_ids=positions.expand_as(input_ids),
        )  # (batch, tokens, dim)
        return torch.cat([text[:, :1], image, text[:, 1:]], dim=1)

    def _encode(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        from transformers.masking_utils import create_bidirectional_mask

        # positional, because the name of the second argument differs between transformers releases
        mask = create_bidirectional_mask(self.text.config, hidden, attention_mask)
        output = self.text.encoder(hidden, attention_mask=mask)
        return torch.as_tensor(output.last_hidden_state)


def meta_model(config: VisualizedBGEConfig) -> VisualizedBGEModel:
    """Build the model without memory for its parameters, ready to be filled by ``checkpoint.fill_model``."""
    # Imported before the meta device is in force: constants that these modules make must not end up on it.
    from transformers import BertModel, XLMRobertaModel  # noqa: F401

    import_timm()
    with torch.device("meta"):
        return VisualizedBGEModel(config)
