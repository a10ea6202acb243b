"""What comes before the model: pictures to squares of 0..1, texts to token ids.

Both follow the authors' code; embeddings are only comparable with theirs, and among each other, when pictures
and texts are prepared in the same way.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
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

    from .configuration import TextConfig

PREPROCESSING_ID = "rgb-by-own-maximum-squash-linear-antialiased-clip"
TOKENIZER_FOLDER = Path(__file__).with_name("tokenizer")
"""CLIP's tokenizer, which all models of this family share; from OpenAI's published vocabulary, MIT."""

Float32Array = npt.NDArray[np.float32]


def squash_image(image: Image.Image, size: int = 224) -> Float32Array:
    """Divide a picture by its own largest value, and squash it to a square.

    The aspect ratio is not kept and nothing is cut off. EXIF orientation is not applied and transparency is
    dropped, not blended, as in the authors' code; whoever wants otherwise does it before.

    Args:
        image: a picture in any Pillow mode that converts to RGB; of an animation the frame it stands at.
        size: side of the square in pixels.

    Returns:
        Channels first, in 0..1 up to rounding, (3, size, size).

    Raises:
        ValueError: the picture is empty.
    """
    load_pixels(image)
    if "transparency" in image.info:  # dropped in any case; Pillow would warn that it is
        image = image.copy()
        del image.info["transparency"]
    channels = image.convert("RGB").split()
    # In floating point, because rounding to whole numbers on the way shows in the embedding. Pillow's linear
    # filter widens with the picture, which is the antialiasing that is asked for.
    squashed = np.stack(
        [
            np.asarray(channel.convert("F").resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
            for channel in channels
        ]
    )
    maximum = np.float32(np.max([channel.getextrema() for channel in channels]))
    result: Float32Array = squashed / (maximum + np.float32(1e-12))  # an all-black picture stays 0
    return result


def normalize_squares(squares: torch.Tensor) -> torch.Tensor:
    """Scale squares to the input of the vision tower, on the device where they are.

    Args:
        squares: float32 in 0..1, (batch, 3, side, side).

    Returns:
        float32, (batch, 3, side, side).
    """
    mean = torch.tensor(CLIP_MEAN, device=squares.device).view(3, 1, 1)
    std = torch.tensor(CLIP_STD, device=squares.device).view(3, 1, 1)
    return (squares - mean).div_(std)


def clean_text(text: str) -> str:
    """Repair, unescape, and lower-case a text as CLIP's own tokenizer does.

    Broken encodings are repaired and odd characters replaced by ``ftfy``, HTML entities are resolved, twice,
    and every run of white space becomes one space.
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


class MagicLensTokenizer(FastTokenizer):
    """Texts to token ids, and these to batches; safe to call from several threads.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        config: the tower that reads the ids.

    Raises:
        ValueError: the tokenizer does not belong to the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: TextConfig) -> None:
        super().__init__(tokenizer, vocab_size=config.vocab_size, fewest=2)
        found = (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
        expected = (config.vocab_size, config.bos_token_id, config.eos_token_id)
        if found != expected:
            raise ValueError(
                f"The tokenizer does not belong to the model: it has {found[0]} entries, start id {found[1]} "
                f"and end id {found[2]}; the model has {expected[0]}, {expected[1]} and {expected[2]}."
            )

    @classmethod
    def from_folder(cls, folder: Path, config: TextConfig) -> MagicLensTokenizer:
        """Load the tokenizer of a folder with ``tokenizer.json``.

        Raises:
            ModelFilesError: the file cannot be read.
            ValueError: the tokenizer does not belong to the model.
        """
        return cls(read_tokenizer(folder), config)

    def __call__(self, texts: Sequence[str]) -> list[Int64Array]:
        """Return the ids of every text with its special tokens, neither padded nor truncated.

        Raises:
            ValueError: the tokenizer cannot read a text, or does not belong to the model.
        """
        return super().__call__([clean_text(text) for text in texts])

    def pad(self, rows: Sequence[Int64Array]) -> torch.Tensor:
        """Stack ids to a batch, padded on the right to the longest, with id 0.

        Not the tokenizer's own padding, which is the end token; and ``!``, whose id 0 is, must not become its
        padding token, because it would then be cut out of texts.

        Returns:
            int64, (batch, tokens).
        """
        ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.from_numpy(tokens)
        return ids
