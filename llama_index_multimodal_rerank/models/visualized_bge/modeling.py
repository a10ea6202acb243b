"""Visualized BGE: picture patches and words in one text encoder.

Paper: VISTA: Visualized Text Embedding For Universal Multi-Modal Retrieval, https://arxiv.org/abs/2406.04292
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..attention import attend, register_attention
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
        text_config._attn_implementation = register_attention()
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
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed a batch of texts, or of pictures with a text each.

        The last layer is computed for the first token alone, which is all that is read of it.

        Args:
            input_ids: token ids with their special tokens, padded on the right, (batch, tokens). A picture
                alone comes with the ids of the empty text.
            attention_mask: 1 for tokens, 0 for padding, (batch, tokens); None where nothing is padded.
            pixel_values: normalised pictures, (batch, 3, side, side), or None for texts alone.

        Returns:
            The last hidden state of the first token, not normalised, (batch, dim).
        """
        hidden, mask = self._embed_tokens(input_ids, attention_mask, pixel_values)
        *layers, last = self.text.encoder.layer
        for layer in layers:
            hidden = layer(hidden, mask)
        return first_token(last, hidden, mask)

    def last_hidden_state(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the last states of all tokens, (batch, patches + tokens, dim); else as :meth:`forward`."""
        hidden, mask = self._embed_tokens(input_ids, attention_mask, pixel_values)
        return torch.as_tensor(self.text.encoder(hidden, attention_mask=mask).last_hidden_state)

    def _embed_tokens(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, pixel_values: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what the text encoder's layers take.

        Returns:
            Token embeddings, (batch, patches + tokens, dim), and which of them count for all others, bool,
            (batch, 1, 1, patches + tokens), or None for all.
        """
        if pixel_values is None:
            hidden = self.text.embeddings(input_ids=input_ids, token_type_ids=torch.zeros_like(input_ids))
        else:
            hidden = self._embed_with_image(input_ids, pixel_values)
        if attention_mask is None:
            return hidden, None
        patches = hidden.shape[1] - input_ids.shape[1]
        return hidden, nn.functional.pad(attention_mask.bool(), (patches, 0), value=True)[:, None, None]

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


def first_token(layer: nn.Module, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Compute a layer of BERT or XLM-RoBERTa for its first token: what the whole layer would give there.

    Args:
        layer: ``BertLayer`` or ``XLMRobertaLayer``.
        hidden: its input, (batch, tokens, dim).
        mask: bool, True where a token counts, (batch, 1, 1, tokens), or None for all.

    Returns:
        (batch, dim).
    """
    attention: Any = layer.attention
    first = hidden[:, :1]
    query, key, value = (
        each.unflatten(-1, (attention.self.num_attention_heads, -1)).transpose(1, 2)
        for each in (attention.self.query(first), attention.self.key(hidden), attention.self.value(hidden))
    )  # (batch, heads, 1 or tokens, head width)
    mixed = attend(query, key, value, mask).transpose(1, 2).flatten(2)  # (batch, 1, dim)
    feed_forward: Any = layer.feed_forward_chunk
    return torch.as_tensor(feed_forward(attention.output(mixed, first)))[:, 0]


def meta_model(config: VisualizedBGEConfig) -> VisualizedBGEModel:
    """Build the model without memory for its parameters, ready to be filled by ``checkpoint.fill_model``."""
    # Imported before the meta device is in force: constants that these modules make must not end up on it.
    from transformers import BertModel, XLMRobertaModel  # noqa: F401

    import_timm()
    with torch.device("meta"):
        return VisualizedBGEModel(config)
