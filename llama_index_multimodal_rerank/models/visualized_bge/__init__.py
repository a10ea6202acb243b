"""Visualized BGE: texts, pictures and pairs of both in one embedding space."""

from ..errors import CheckpointError, ModelFilesError
from ..items import ImageLike, Item
from .configuration import BASE_EN_V1_5, M3, TextConfig, VisionConfig, VisualizedBGEConfig
from .encoder import VisualizedBGE
from .modeling import VisualizedBGEModel

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
]
