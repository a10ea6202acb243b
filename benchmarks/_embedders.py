"""The embedding models that ``benchmarks.embed`` measures: how each is made, and how its module is called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from llama_index_multimodal_rerank import MagicLensEmbedding, VisualizedBGEEmbedding
from llama_index_multimodal_rerank.embeddings.image_text_embedding import ImageTextEmbedding
from llama_index_multimodal_rerank.models import magiclens, visualized_bge
from llama_index_multimodal_rerank.models.image_text_encoder import ImageTextEncoder
from llama_index_multimodal_rerank.models.magiclens.configuration import RELEASED as MAGICLENS_RELEASED
from llama_index_multimodal_rerank.models.magiclens.processing import normalize_squares
from llama_index_multimodal_rerank.models.visualized_bge.configuration import RELEASED as BGE_RELEASED
from llama_index_multimodal_rerank.models.visualized_bge.processing import normalize_crops

from ._checkpoints import as_published, magiclens_folder, visualized_bge_folder

Content = tuple[str, Path | None]
Inputs = tuple[torch.Tensor | None, ...]


class Embedder(ABC):
    """One family of models.

    Args:
        encoder: a loaded model of the family.
    """

    embedding: ClassVar[type[ImageTextEmbedding]]
    kinds: ClassVar[tuple[str, ...]]

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.module = encoder.model
        self.tokenizer = encoder.tokenizer

    @staticmethod
    @abstractmethod
    def write_folder(folder: Path, model: str, *, tiny: bool) -> Path:
        """Write a checkpoint of seeded weights, unless it is there."""

    @staticmethod
    @abstractmethod
    def load(place: Path, device: torch.device) -> ImageTextEncoder:
        """Load a checkpoint in float32, computed by timm's and transformers' own layers."""

    @abstractmethod
    def is_released_size(self) -> bool:
        """Say whether the model is as large as one of the released ones."""

    @abstractmethod
    def inputs(self, contents: Sequence[Content]) -> Inputs:
        """Return what the module is called with for items of one kind, on the device."""

    def pixels(self, contents: Sequence[Content]) -> torch.Tensor | None:
        """Decode and preprocess the pictures of items, one after the other."""
        arrays = [self.encoder.preprocess(Image.open(path)) for _, path in contents if path is not None]
        return torch.from_numpy(np.stack(arrays)).to(self.encoder.device) if arrays else None


class VisualizedBGEEmbedder(Embedder):
    """Visualized BGE."""

    embedding = VisualizedBGEEmbedding
    kinds = ("image", "image_text", "text")

    @staticmethod
    def write_folder(folder: Path, model: str, *, tiny: bool) -> Path:
        """Write a checkpoint of seeded weights, unless it is there."""
        return visualized_bge_folder(folder, model=model, tiny=tiny)

    @staticmethod
    def load(place: Path, device: torch.device) -> ImageTextEncoder:
        """Load a checkpoint in float32."""
        bge = visualized_bge.VisualizedBGE.from_pretrained(place, device=device, dtype="float32")
        as_published(bge.model)
        return bge

    def is_released_size(self) -> bool:
        """Say whether the model is as large as one of the released ones."""
        config = self.module.config
        return any((config.text, config.vision) == (each.text, each.vision) for each in BGE_RELEASED)

    def inputs(self, contents: Sequence[Content]) -> Inputs:
        """Return ids, mask and pixels."""
        device = self.encoder.device
        ids, mask = self.tokenizer.pad(self.tokenizer([text for text, _ in contents]))
        crops = self.pixels(contents)
        pixels = None if crops is None else normalize_crops(crops).to(self.encoder.dtype)
        return ids.to(device), None if mask.all() else mask.to(device), pixels


class MagicLensEmbedder(Embedder):
    """MagicLens; it has no embedding of a text alone."""

    embedding = MagicLensEmbedding
    kinds = ("image", "image_text")

    @staticmethod
    def write_folder(folder: Path, model: str, *, tiny: bool) -> Path:
        """Write a checkpoint of seeded weights, unless it is there."""
        return magiclens_folder(folder, model=model, tiny=tiny)

    @staticmethod
    def load(place: Path, device: torch.device) -> ImageTextEncoder:
        """Load a checkpoint in float32."""
        return magiclens.MagicLens.from_pretrained(place, device=device, dtype="float32")

    def is_released_size(self) -> bool:
        """Say whether the model is as large as one of the released ones."""
        config = self.module.config
        parts = (config.text, config.vision, config.fusion)
        return any(parts == (each.text, each.vision, each.fusion) for each in MAGICLENS_RELEASED)

    def inputs(self, contents: Sequence[Content]) -> Inputs:
        """Return ids, pixels, and which text belongs to which picture; equal texts once."""
        device = self.encoder.device
        texts = list(dict.fromkeys(text for text, _ in contents))
        ids = self.tokenizer.pad(self.tokenizer(texts))
        squares = self.pixels(contents)
        if squares is None:
            raise ValueError("MagicLens embeds no text alone")
        index = torch.tensor([texts.index(text) for text, _ in contents])
        return ids.to(device), normalize_squares(squares).to(self.encoder.dtype), index.to(device)


EMBEDDERS: dict[str, type[Embedder]] = {
    "base": VisualizedBGEEmbedder,
    "m3": VisualizedBGEEmbedder,
    "magiclens-base": MagicLensEmbedder,
    "magiclens-large": MagicLensEmbedder,
}
"""By the name that ``--model`` takes."""
