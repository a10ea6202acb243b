"""What comes before the model: pictures to 224 x 224 crops, texts to token ids.

The crops equal those of the authors' code bit for bit: embeddings are only comparable with theirs, and among
each other, when pictures are resized in exactly the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..fast_tokenizer import FastTokenizer, Int64Array, read_tokenizer
from ..pixels import CLIP_MEAN, CLIP_STD, load_pixels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .configuration import VisualizedBGEConfig

PREPROCESSING_ID = "pillow-bicubic-shorter-side-center-crop-rgb-clip"
MAX_ASPECT_RATIO = 1000
SPECIAL_TOKENS = 2
"""Tokens that the tokenizer puts around a text; all that there is of an empty one."""

Uint8Array = npt.NDArray[np.uint8]


def crop_image(image: Image.Image, size: int = 224) -> Uint8Array:
    """Resize a picture, cut out its centre and convert it to RGB, in this order.

    EXIF orientation is not applied and transparency is dropped, not blended, as in the authors' code; whoever
    wants otherwise does it before.

    Args:
        image: a picture in any Pillow mode that converts to RGB; of an animation the frame it stands at.
        size: side of the crop in pixels.

    Returns:
        The crop, (size, size, 3).

    Raises:
        ValueError: the picture is empty, or longer than 1000 times its width.
    """
    load_pixels(image)
    width, height = image.size
    shorter, longer = sorted(image.size)
    if longer > MAX_ASPECT_RATIO * shorter:
        raise ValueError(
            f"The image of {width} x {height} pixels is too narrow: its sides may differ by a factor of "
            f"{MAX_ASPECT_RATIO} at most. Crop it first."
        )
    long_side = size * longer // shorter
    resized = (size, long_side) if width <= height else (long_side, size)
    if resized != image.size:
        # In the mode of the file, because Pillow treats palettes and transparency in its own way while
        # resizing.
        image = image.resize(resized, Image.Resampling.BICUBIC)
    # round() takes halves to the even neighbour
    left, top = (round((side - size) / 2) for side in resized)
    crop = image.crop((left, top, left + size, top + size))
    crop.info.pop("transparency", None)  # dropped in any case; Pillow would warn that it is
    return np.asarray(crop if crop.mode == "RGB" else crop.convert("RGB"), dtype=np.uint8)


def normalize_crops(crops: torch.Tensor) -> torch.Tensor:
    """Scale crops to the input of the vision tower, on the device where they are.

    Args:
        crops: uint8, (batch, side, side, 3).

    Returns:
        float32, (batch, 3, side, side).
    """
    mean, std = _clip_statistics(crops.device)
    return (crops.permute(0, 3, 1, 2).float() / 255).sub_(mean).div_(std)


@cache
def _clip_statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    # Kept on the device: a copy from the host would make the host wait, and cannot be part of a CUDA graph.
    with torch.inference_mode(False):
        mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    return mean, std


class TextTokenizer(FastTokenizer):
    """Texts to token ids, and these to batches; safe to call from several threads.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        config: the model that reads the ids.

    Raises:
        ValueError: the tokenizer does not belong to the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: VisualizedBGEConfig) -> None:
        super().__init__(tokenizer, vocab_size=config.text.vocab_size)
        if tokenizer.pad_token_id != config.text.pad_token_id or len(tokenizer) > config.text.vocab_size:
            raise ValueError(
                f"The tokenizer does not belong to {config.name!r}: it has {len(tokenizer)} entries and "
                f"padding id {tokenizer.pad_token_id}; the model has {config.text.vocab_size} rows and "
                f"padding id {config.text.pad_token_id}."
            )
        self._pad_id = config.text.pad_token_id
        if (special := len(self([""])[0])) != SPECIAL_TOKENS:
            raise ValueError(
                f"The tokenizer does not belong to {config.name!r}: it puts {special} special tokens around "
                "a text; the model reads two, one before and one after it."
            )

    @classmethod
    def from_folder(cls, folder: Path, config: VisualizedBGEConfig) -> TextTokenizer:
        """Load the tokenizer of a folder with ``tokenizer.json``.

        Raises:
            ModelFilesError: the file cannot be read.
            ValueError: the tokenizer does not belong to the model.
        """
        return cls(read_tokenizer(folder), config)

    def pad(self, rows: Sequence[Int64Array]) -> tuple[torch.Tensor, torch.Tensor]:
        """Stack ids to a batch, padded on the right to the longest.

        Returns:
            ``input_ids`` and ``attention_mask`` (1 for tokens, 0 for padding), both int64, (batch, tokens).
        """
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        is_token = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(is_token.shape, self._pad_id)
        ids[is_token] = np.concatenate(rows)
        return torch.from_numpy(ids), torch.from_numpy(is_token.astype(np.int64))
