"""What can go wrong before the first embedding: files that are not there, files that do not fit."""

from __future__ import annotations


class ModelFilesError(OSError):
    """The files of a model cannot be found, reached or downloaded."""


class CheckpointError(ValueError):
    """A weights file is damaged, unsafe, or does not hold the tensors of the model."""
