"""Visualized BGE: texts, pictures and pairs of both in one embedding space."""

from .batching import ImageLike, Item, batch_order
from .configuration import BASE_EN_V1_5, M3, TextConfig, VisionConfig, VisualizedBGEConfig
from .encoder import VisualizedBGE
from .errors import CheckpointError, ModelFilesError
from .modeling import VisualizedBGEModel
from .prefetch import map_ahead

__all__ = [
    "BASE_EN_V1_5",
    "M3",
    "CheckpointError",
    "ImageLike",
    "Item",
    "ModelFilesError",
    "TextConfig",
    "VisionConfig",
    "VisualizedBGE",
    "VisualizedBGEConfig",
    "VisualizedBGEModel",
    "batch_order",
    "map_ahead",
]
