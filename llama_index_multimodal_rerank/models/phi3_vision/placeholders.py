"""Negative ids: where the pictures stand in a prompt, and putting their features there.

The processor writes the id -i once per feature vector of picture i, as the published one does. In a batch
every prompt counts its own pictures from 1; `image_features` lists them prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .image_tags import image_tag

ImageFeatures = Sequence[torch.Tensor]
"""One tensor (tokens, hidden) per picture, prompt by prompt, in the order of the tag numbers."""


def images_per_prompt(input_ids: torch.Tensor) -> list[int]:
    """Return how many pictures each row refers to: its highest picture number, or 0.

    Args:
        input_ids: (batch, tokens), at least one token.
    """
    counts: list[int] = (-input_ids).amax(dim=1).clamp(min=0).tolist()
    return counts


def split_by_prompt(image_features: ImageFeatures, counts: Sequence[int]) -> list[list[torch.Tensor]]:
    """Give every prompt its own pictures.

    Args:
        image_features: Features of all pictures, prompt by prompt.
        counts: Number of pictures of each prompt.

    Raises:
        ValueError: If there are more or fewer features than the prompts refer to.
    """
    if len(image_features) != sum(counts):
        raise ValueError(
            f"{len(image_features)} pictures were given, but input_ids refers to {sum(counts)}: "
            f"{list(counts)} by prompt. Use the ids, pixel values and sizes of one call of the processor, "
            "and give image_features prompt by prompt"
        )
    features = iter(image_features)
    return [[next(features) for _ in range(count)] for count in counts]


def merge_image_features(
    inputs_embeds: torch.Tensor, input_ids: torch.Tensor, image_features: ImageFeatures, *, all_used: bool
) -> torch.Tensor:
    """Put the features of picture i where the id -i stands.

    Args:
        inputs_embeds: (batch, tokens, hidden); what stands at the negative ids does not matter.
        input_ids: (batch, tokens).
        image_features: Features of all pictures, prompt by prompt.
        all_used: Whether every picture must appear in `input_ids`. Not so if part of the prompt is already
            cached.

    Returns:
        A new tensor (batch, tokens, hidden).

    Raises:
        ValueError: If pictures and ids do not fit each other.
    """
    features_by_prompt = split_by_prompt(image_features, images_per_prompt(input_ids))
    in_order = []
    for row, (ids, features) in enumerate(zip(input_ids, features_by_prompt, strict=True)):
        runs, lengths = torch.unique_consecutive(ids[ids < 0], return_counts=True)
        numbers = (-runs).tolist()
        missing = sorted(set(range(1, len(features) + 1)) - set(numbers)) if all_used else []
        if missing or len(set(numbers)) != len(numbers):
            raise ValueError(
                f"prompt {row} has the pictures {numbers} in this order; it was given {len(features)} and "
                "must contain each exactly once"
            )
        for number, length in zip(numbers, lengths.tolist(), strict=True):
            if len(features[number - 1]) != length:
                raise ValueError(
                    f"prompt {row} holds {length} placeholders for {image_tag(number)}, but that picture has "
                    f"{len(features[number - 1])} feature vectors. Were the ids made for another picture or "
                    "another num_crops?"
                )
            in_order.append(features[number - 1])
    if not in_order:
        return inputs_embeds
    values = torch.cat([feature.to(inputs_embeds) for feature in in_order])
    return inputs_embeds.masked_scatter((input_ids < 0)[..., None], values)
