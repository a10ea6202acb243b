"""MagicLens: a picture and an instruction to one embedding, on transformers' CLIP.

Paper: MagicLens: Self-Supervised Image Retrieval with Open-Ended Instructions,
https://arxiv.org/abs/2403.19651
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .fusion import FusionHead

if TYPE_CHECKING:
    from .configuration import MagicLensConfig


class MagicLensModel(nn.Module):
    """CLIP's two towers and the head that fuses their outputs.

    Starts in evaluation mode. ``clip.logit_scale`` is part of the released files; no embedding depends on it.

    Args:
        config: sizes of all parts.
    """

    def __init__(self, config: MagicLensConfig) -> None:
        super().__init__()
        from transformers import CLIPModel

        self.config = config
        self.clip = CLIPModel(config.to_clip())
        # Made on the CPU even while the parameters are on the meta device: no state dict fills them.
        for embeddings in (self.clip.text_model.embeddings, self.clip.vision_model.embeddings):
            rows = embeddings.position_embedding.num_embeddings
            positions = torch.arange(rows, device="cpu").unsqueeze(0)
            embeddings.register_buffer("position_ids", positions, persistent=False)
        self.fusion = FusionHead(config.fusion)
        self.requires_grad_(False)
        self.eval()

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, text_index: torch.Tensor
    ) -> torch.Tensor:
        """Embed pictures, each with a text.

        Args:
            input_ids: token ids of the texts, see :meth:`embed_text`, (texts, tokens).
            pixel_values: normalised pictures, (batch, 3, side, side).
            text_index: the row of ``input_ids`` that belongs to each picture, (batch,). A catalogue's
                pictures all come with one text, the empty one, which is then computed once.

        Returns:
            Embeddings, not normalised, float32, (batch, width).
        """
        image = self.embed_image(pixel_values)  # (batch, width)
        text = self.embed_text(input_ids)[text_index]  # (batch, width)
        return self.fuse(image, text)

    def embed_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the vision tower.

        Args:
            pixel_values: normalised pictures, (batch, 3, side, side).

        Returns:
            CLIP's image embeddings, not normalised, (batch, width).
        """
        pooled = self.clip.vision_model(pixel_values).pooler_output  # (batch, vision width)
        return torch.as_tensor(self.clip.visual_projection(pooled))

    def embed_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Run the text tower.

        Args:
            input_ids: start token, text, end token, then zeros, (texts, tokens). A 0 inside a text is
                masked, too, as it is in the reference.

        Returns:
            CLIP's text embeddings, not normalised, (texts, width).
        """
        hidden = self.clip.text_model(input_ids, attention_mask=input_ids > 0).last_hidden_state
        # (texts, tokens, text width)
        rows = torch.arange(len(input_ids), device=input_ids.device)
        ends = input_ids.argmax(dim=1)  # the end token has the largest id; the first, where there are several
        pooled = hidden[rows, ends]  # (texts, text width)
        return torch.as_tensor(self.clip.text_projection(pooled))

    def fuse(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Fuse the towers' outputs, in float32 whatever the towers run in; see :class:`FusionHead`.

        The two tokens attend sharply, so half precision costs more here than in the towers.
        """
        return torch.as_tensor(self.fusion(image.float(), text.float()))


def meta_model(config: MagicLensConfig) -> MagicLensModel:
    """Build the model without memory for its parameters, ready to be filled by ``state_dict.fill_model``."""
    # Imported before the meta device is in force: constants that this module makes must not end up on it.
    from transformers import CLIPModel  # noqa: F401

    with torch.device("meta"):
        return MagicLensModel(config)
