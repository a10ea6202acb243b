"""Pixel values to the vectors that stand in the prompt for a picture.

Source: model card and weight names of `microsoft/Phi-3-vision-128k-instruct`. The attribute names are those
of the released weights, so that a checkpoint needs no renaming of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel

from ..hd_geometry import TOKENS_PER_SIDE, tile_grid
from .configuration_phi3_vision import Phi3VisionConfig


class Phi3VisionImageEmbedding(nn.Module):
    """Vision tower, layout with learned separators, and projector.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: Phi3VisionConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size * 4
        self.img_processor = CLIPVisionModel(config.vision_config)
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, width))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.img_projection = nn.Sequential(
            nn.Linear(width, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )

    @property
    def tower(self) -> Any:
        """The module that holds the vision tower's `embeddings`, `pre_layrnorm` and `encoder`."""
        # Early releases of transformers 5 have one level more.
        return getattr(self.img_processor, "vision_model", self.img_processor)

    def forward(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode pictures one after the other, so that memory does not grow with their number.

        Args:
            pixel_values: (images, views, 3, 336, 336) from the image processor; views beyond a picture's own
                are never looked at.
            image_sizes: (images, 2), padded height and width in pixels.

        Returns:
            One tensor (tokens, hidden) per picture, where tokens is `hd_geometry.num_image_tokens(height,
            width)`.

        Raises:
            ValueError: If the two arguments do not fit each other.
        """
        if pixel_values.ndim != 5 or len(pixel_values) != len(image_sizes):
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)} and image_sizes has shape "
                f"{tuple(image_sizes.shape)}; expected (images, views, 3, 336, 336) and (images, 2) with the "
                "same number of images"
            )
        features = []
        for views, (height, width) in zip(pixel_values, image_sizes.tolist(), strict=True):
            rows, columns = tile_grid(height, width)
            needed = 1 + rows * columns
            if len(views) < needed:
                raise ValueError(
                    f"a picture of {height}x{width} pixels (height x width) needs {needed} views, but "
                    f"pixel_values holds {len(views)} per picture"
                )
            features.append(self.encode(views[:needed], rows, columns))
        return tuple(features)

    def encode(self, views: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Encode one picture.

        Args:
            views: (1 + rows * columns, 3, 336, 336), the global view first.
            rows: Tile rows.
            columns: Tile columns.

        Returns:
            (tokens, hidden): the tiles' lines, a separator, the global view's lines.
        """
        patches = self.patch_features(views)  # (views, 576, width)
        grids = merge_patches(patches)  # (views, 12, 12, 4 * width)
        side, width = grids.shape[1], grids.shape[-1]
        tiles = grids[1:].reshape(rows, columns, side, side, width).transpose(1, 2)
        tiles = tiles.reshape(rows * side, columns * side, width)  # (12 * rows, 12 * columns, 4 * width)
        sequence = torch.cat([self.lines(tiles), self.glb_GN[0], self.lines(grids[0])])  # (tokens, 4 * width)
        projected: torch.Tensor = self.img_projection(sequence)
        return projected

    def patch_features(self, views: torch.Tensor) -> torch.Tensor:
        """Return the output of the tower's last layer but one, (views, 576, width), without final norm."""
        # The separators are never quantised, so they tell the dtype the tower computes in.
        views = views.to(device=self.glb_GN.device, dtype=self.glb_GN.dtype)
        # Layer by layer, because output_hidden_states=True reads the layers through hooks that transformers
        # may install twice, whereupon `hidden_states[-2]` is another layer. The last layer is not run at all.
        tower = self.tower
        hidden_states: torch.Tensor = tower.pre_layrnorm(tower.embeddings(views))  # (views, 577, width)
        for layer in tower.encoder.layers[:-1]:
            hidden_states = layer(hidden_states, None)
        return hidden_states[:, 1:]  # without the class position

    def lines(self, grid: torch.Tensor) -> torch.Tensor:
        """Read a grid line by line with a separator at the end of each.

        Args:
            grid: (lines, columns, channels).

        Returns:
            (lines * (columns + 1), channels).
        """
        ends = self.sub_GN[0].expand(len(grid), 1, -1)
        return torch.cat([grid, ends], dim=1).flatten(0, 1)


def merge_patches(patches: torch.Tensor) -> torch.Tensor:
    """Join every 2x2 block of patch vectors into one: upper left, upper right, lower left, lower right.

    Args:
        patches: (views, 576, width), row by row.

    Returns:
        (views, 12, 12, 4 * width).
    """
    views, _, width = patches.shape
    side = TOKENS_PER_SIDE
    blocks = patches.reshape(views, side, 2, side, 2, width).transpose(2, 3)  # (views, 12, 12, 2, 2, width)
    return blocks.reshape(views, side, side, 4 * width)
