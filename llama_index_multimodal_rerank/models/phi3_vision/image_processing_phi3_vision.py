"""Pictures to pixel values: the HD transform of Phi-3 Vision.

Source: preprocessor of `microsoft/Phi-3-vision-128k-instruct` (model card and `preprocessor_config.json`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import load_image
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..hd_geometry import TILE, check_num_crops, hd_size, num_image_tokens

WHITE = (255, 255, 255)

BAND = 84
"""Rows of pixels that are normalised at a time on a CPU."""

MANY_VIEWS = 5
"""Views from which on the channels are normalised in a thread each; starting one takes as long as a view."""


class Phi3VisionImagesKwargs(TypedDict, total=False):
    """Settings of `Phi3VisionImageProcessor` that may be stored, or given to `from_pretrained`."""

    num_crops: int
    image_mean: list[float]
    image_std: list[float]


def as_pictures(images: object) -> list[Image.Image]:
    """Return one picture, or a list of pictures, as a list of Pillow pictures.

    Args:
        images: Pillow pictures, or strings that `transformers.image_utils.load_image` opens: paths, URLs,
            base64. (`load_image` applies EXIF orientation. Pictures given as such are taken as they are.)

    Raises:
        TypeError: If anything else is found.
        ValueError: If there is none, or a string is not a picture.
    """
    entries = images if isinstance(images, list | tuple) else [images]
    if not entries:
        raise ValueError("images is empty; give at least one picture, or leave images out for text alone")
    pictures = []
    for entry in entries:
        picture = load_image(entry) if isinstance(entry, str) else entry
        if not isinstance(picture, Image.Image):
            raise TypeError(
                "images must be PIL.Image.Image, or strings with a path, URL or base64, or a list of these; "
                f"got {type(entry).__name__}. Turn arrays into pictures with PIL.Image.fromarray(...)"
            )
        pictures.append(picture)
    return pictures


class Phi3VisionImageProcessor(BaseImageProcessor):
    """Turn pictures of any size into a 336x336 global view plus 336x336 tiles.

    The picture is enlarged or shrunk to a grid of at most `num_crops` tiles (see `hd_geometry.hd_size`),
    padded with white to whole tiles, normalised, and cut. Alpha is dropped rather than blended, and EXIF
    orientation is not applied, as in the published preprocessor; use `PIL.ImageOps.exif_transpose` before, if
    wanted.

    Args:
        num_crops: Greatest number of tiles per picture; more tiles show more detail and cost more tokens.
        image_mean: Mean per channel (RGB, of values in 0..1) that is subtracted.
        image_std: Standard deviation per channel that is divided by.
        **kwargs: Bookkeeping entries of a stored configuration.
    """

    model_input_names = ["pixel_values", "image_sizes"]  # noqa: RUF012 (transformers' own spelling)
    valid_kwargs = Phi3VisionImagesKwargs  # type: ignore[assignment]

    def __init__(
        self,
        num_crops: int = 16,
        image_mean: Sequence[float] = tuple(OPENAI_CLIP_MEAN),
        image_std: Sequence[float] = tuple(OPENAI_CLIP_STD),
        **kwargs: Any,
    ) -> None:
        # The published file names remote code and repeats the constant 144; neither belongs in a file saved
        # by us.
        for name in ("auto_map", "num_img_tokens", "image_processor_type"):
            kwargs.pop(name, None)
        super().__init__(**kwargs)
        self.num_crops = check_num_crops(num_crops)
        self.image_mean = [float(value) for value in image_mean]
        self.image_std = [float(value) for value in image_std]

    def preprocess(
        self,
        images: Image.Image | str | Sequence[Image.Image | str],
        *,
        num_crops: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Process pictures, which may differ in size and mode.

        Args:
            images: One picture or a list of n: Pillow pictures, or paths, URLs or base64 strings.
            num_crops: Replaces the stored `num_crops` for this call.
            return_tensors: `"pt"` or `"np"`.

        Returns:
            `pixel_values`, float32 (n, num_crops + 1, 3, 336, 336): the global view, then the tiles row by
            row, then zeros; `image_sizes`, int64 (n, 2): padded height and width in pixels; `num_img_tokens`,
            int64 (n,).

        Raises:
            TypeError: If an entry is not a picture.
            ValueError: If there is no picture, `num_crops` is below 1 or a picture is too thin.
        """
        crops = self.num_crops if num_crops is None else check_num_crops(num_crops)
        pictures = as_pictures(images)
        # Sizes first, so that a picture that cannot be processed is refused before any work is done.
        for picture in pictures:
            hd_size(*picture.size, crops)
        pixel_values = torch.zeros(len(pictures), crops + 1, 3, TILE, TILE)
        image_sizes = []
        for row, picture in zip(pixel_values, pictures, strict=True):
            padded = self.hd_transform(picture, crops)
            views = self.views(padded)
            row[: len(views)] = views
            image_sizes.append((padded.height, padded.width))
        data: dict[str, Any] = {
            "pixel_values": pixel_values,
            "image_sizes": torch.tensor(image_sizes),
            "num_img_tokens": torch.tensor([num_image_tokens(*size) for size in image_sizes]),
        }
        if return_tensors == "np":
            data = {name: value.numpy() for name, value in data.items()}
        elif return_tensors != "pt":
            raise ValueError(f"return_tensors is {return_tensors!r}; it must be 'pt' or 'np'")
        return BatchFeature(data)

    def hd_transform(self, picture: Image.Image, num_crops: int) -> Image.Image:
        """Resize a picture to its grid and pad it with white, half of the rows (columns) on either side.

        Args:
            picture: A picture of any mode and size.
            num_crops: Greatest number of tiles.

        Returns:
            An RGB picture whose sides are multiples of 336 pixels; the picture itself if that is one.
        """
        size = hd_size(*picture.size, num_crops)
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        if (
            picture.size
            == (size.resized_width, size.resized_height)
            == (size.padded_width, size.padded_height)
        ):
            return picture  # a sheet, drawn in the model's own geometry
        # Tall pictures take the same path as wide ones, mirrored along the diagonal: resizing filters the two
        # axes one after the other with rounding in between, so the order of the axes shows in the last bit.
        tall = picture.width < picture.height
        if tall:
            picture = picture.transpose(Image.Transpose.TRANSPOSE)
            width, height = size.resized_height, size.resized_width
            padded_height = size.padded_width
        else:
            width, height = size.resized_width, size.resized_height
            padded_height = size.padded_height
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        top = (padded_height - height) // 2
        picture = ImageOps.expand(picture, border=(0, top, 0, padded_height - height - top), fill=WHITE)
        return picture.transpose(Image.Transpose.TRANSPOSE) if tall else picture

    def views(
        self, padded: Image.Image | np.ndarray[Any, Any], device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """Return the global view and the tiles of a picture that :meth:`hd_transform` returned.

        Pixels travel to the device as the bytes that they are, and are normalised there.

        Args:
            padded: An RGB picture whose sides are multiples of 336 pixels, or its pixels (height, width, 3).
            device: Where the result is wanted.

        Returns:
            float32 (1 + rows * columns, 3, 336, 336).
        """
        pixels = np.asarray(padded)  # (height, width, 3), uint8
        device = torch.device(device)
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.image_mean, self.image_std))
        if device.type != "cpu":
            values = torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1).float().div_(255)
            return self.cut(values.sub_(mean.to(device)).div_(std.to(device)))
        # A byte has 256 values only. Looked up in bands that stay in the processor's cache, which takes a
        # fraction of the time of four passes through memory, and gives the same numbers.
        table = ((torch.arange(256).float() / 255 - mean[:, 0]) / std[:, 0]).numpy()  # (3, 256)
        height, width, channels = pixels.shape
        # An array, because inference mode, which tensors remember, is a matter of the thread.
        views = np.empty((1 + height // TILE * (width // TILE), channels, TILE, TILE), dtype=np.float32)

        def fill(channel: int) -> None:
            values = torch.empty(1, height, width)
            for top in range(0, height, BAND):
                band, out = pixels[top : top + BAND, :, channel], values[0, top : top + BAND].numpy()
                np.take(table[channel], band, out=out, mode="clip")
            self.cut(values, torch.from_numpy(views[:, channel : channel + 1]))

        if len(views) < MANY_VIEWS:
            for channel in range(channels):
                fill(channel)
        else:  # side by side: nothing of this holds the GIL
            with ThreadPoolExecutor(channels, thread_name_prefix="channels") as pool:
                list(pool.map(fill, range(channels)))
        return torch.from_numpy(views)

    @staticmethod
    def cut(padded: torch.Tensor, views: torch.Tensor | None = None) -> torch.Tensor:
        """Return the global view and the tiles of a normalised, padded picture.

        Args:
            padded: (channels, height, width), both sides multiples of 336.
            views: Where to write the result; default: new memory.

        Returns:
            (1 + rows * columns, channels, 336, 336): the whole picture in one tile, then the tiles row by
            row.
        """
        channels, height, width = padded.shape
        global_view = F.interpolate(padded[None], size=(TILE, TILE), mode="bicubic", align_corners=False)
        rows, columns = height // TILE, width // TILE
        tiles = padded.reshape(channels, rows, TILE, columns, TILE).permute(1, 3, 0, 2, 4)
        if views is None:
            views = padded.new_empty(1 + rows * columns, channels, TILE, TILE)
        views[:1] = global_view
        into = torch.unflatten(views[1:], 0, (rows, columns))
        if padded.device.type == "cpu":
            np.copyto(into.numpy(), tiles.numpy())  # starting threads would take longer than this does
        else:
            into.copy_(tiles)
        return views
