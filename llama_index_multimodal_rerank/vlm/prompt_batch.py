"""A batch of prompts, as the model reads it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Prompt(NamedTuple):
    """A batch of prompts, ready for the model.

    Ids and mask stay on the host, where they are looked at without waiting for the device.
    """

    input_ids: torch.Tensor  # (batch, tokens), left-padded
    attention_mask: torch.Tensor  # (batch, tokens)
    image_features: tuple[torch.Tensor, ...]

    def model_inputs(self, device: torch.device) -> dict[str, Any]:
        """Return the arguments with which the model reads the prompts."""
        return {
            "input_ids": self.input_ids.to(device),
            "attention_mask": self.attention_mask.to(device),
            "image_features": self.image_features or None,
        }

    def append(self, ids: torch.Tensor) -> Prompt:
        """Return the prompts with more tokens, (batch, more) or (more,) for all alike."""
        ids = ids.to(self.input_ids).expand(len(self.input_ids), -1)
        return Prompt(
            torch.cat([self.input_ids, ids], dim=1),
            torch.cat([self.attention_mask, torch.ones_like(ids)], dim=1),
            self.image_features,
        )
