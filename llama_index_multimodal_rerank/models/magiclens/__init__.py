"""MagicLens: pictures, and pictures with an instruction, in one embedding space."""

from ..errors import CheckpointError, ModelFilesError
from ..items import ImageLike, Item
from .configuration import BASE, LARGE, FusionConfig, MagicLensConfig, TextConfig, VisionConfig
from .encoder import MagicLens
from .files import convert_checkpoint
from .modeling import MagicLensModel

__all__ = [
    "BASE",
    "LARGE",
    "CheckpointError",
    "FusionConfig",
    "ImageLike",
    "Item",
    "MagicLens",
    "MagicLensConfig",
    "MagicLensModel",
    "ModelFilesError",
    "TextConfig",
    "VisionConfig",
    "convert_checkpoint",
]
