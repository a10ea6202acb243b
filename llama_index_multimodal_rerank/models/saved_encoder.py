"""What every encoder has that was loaded from a checkpoint: its parts, its fingerprint, how it is saved."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

from .fast_tokenizer import FastTokenizer
from .hub import CONFIG_NAME, WEIGHTS_NAME


class ModelConfig(Protocol):
    """Sizes of a model, as ``config.json`` has them."""

    @property
    def name(self) -> str:
        """Name of the model; part of what tells one embedding space from another."""

    def to_json_file(self, path: Path) -> None:
        """Write ``config.json``."""


class ConfiguredModel(Protocol):
    """A module that knows its sizes."""

    @property
    def config(self) -> ModelConfig:
        """Sizes of all parts."""


class SavedEncoder(ABC):
    """A model with its tokenizer and the digest of its weights.

    Args:
        model: the filled model.
        tokenizer: its tokenizer.
        weights_sha256: digest of the weights, for :attr:`fingerprint`.
    """

    def __init__(self, model: ConfiguredModel, tokenizer: FastTokenizer, *, weights_sha256: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._weights_sha256 = weights_sha256

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    @abstractmethod
    def _preprocessing(self) -> str:
        """Name of the way pictures are prepared; equal names give equal pixels."""

    @abstractmethod
    def _save_weights(self, path: Path) -> None:
        """Write the weights as safetensors, in the current dtypes."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """What tells this embedding space from others: equal fingerprints give comparable embeddings.

        ``model`` (name), ``weights_sha256`` (over the values of the tensors, the same for a released file and
        a ``.safetensors`` file and for any device and dtype the model runs in), ``preprocessing``, ``dim``.
        """
        return {
            "model": self.model.config.name,
            "weights_sha256": self._weights_sha256,
            "preprocessing": self._preprocessing,
            "dim": str(self.dim),
        }

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write configuration, tokenizer and weights into a folder that ``from_pretrained`` reads.

        The weights are a safetensors file in the current dtypes: a model that was loaded in another type than
        its file has is rounded. ``magiclens.convert_checkpoint`` turns a released file into one as it is.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.tokenizer.save_pretrained(folder)
        self.model.config.to_json_file(folder / CONFIG_NAME)
        self._save_weights(folder / WEIGHTS_NAME)
