"""The public face of MagicLens: pictures, and pictures with an instruction, to embeddings."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..fast_tokenizer import Int64Array
from ..hardware import resolve_device, resolve_dtype
from ..hub import HubOptions
from ..image_text_encoder import ImageArray, ImageTextEncoder
from ..items import Entry
from .configuration import BASE, MagicLensConfig
from .files import open_model_files
from .modeling import MagicLensModel, meta_model
from .processing import (
    PREPROCESSING_ID,
    TOKENIZER_FOLDER,
    Float32Array,
    MagicLensTokenizer,
    normalize_squares,
    squash_image,
)
from .state_dict import Weights, fill_model, random_weights, save_model

logger = logging.getLogger(__name__)


class MagicLens(ImageTextEncoder):
    """Embeds pictures, and pictures with an instruction, into one space.

    A gallery's picture is embedded with the empty text, a query's with what is asked of it: "the same
    bridge, but at night". There is no embedding of a text without a picture.

    One instance may be used by several threads; the model runs for one of them at a time.

    Paper: https://arxiv.org/abs/2403.19651

    Args:
        model: the filled model.
        tokenizer: its tokenizer.
        weights_sha256: digest of the weights, for :attr:`fingerprint`.

    Example:
        A model of random weights, small enough for a notebook:

        >>> import torch
        >>> from PIL import Image
        >>> from llama_index_multimodal_rerank.models.magiclens import (
        ...     FusionConfig, MagicLens, MagicLensConfig, TextConfig, VisionConfig)
        >>> sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        >>> config = MagicLensConfig(
        ...     name="tiny",
        ...     text=TextConfig(hidden_size=16, **sizes),
        ...     vision=VisionConfig(hidden_size=16, patch_size=32, **sizes),
        ...     fusion=FusionConfig(hidden_size=16, pooler_size=64, **sizes),
        ... )
        >>> lens = MagicLens.from_config(config, seed=0)
        >>> red, blue = Image.new("RGB", (90, 60), "red"), Image.new("RGB", (60, 90), "navy")
        >>> lens.encode([red, ("the same, but round", blue)]).shape
        (2, 16)
        >>> lens.encode(["round"])
        Traceback (most recent call last):
        ...
        ValueError: items[0] is a text without an image, and MagicLens embeds no text alone: 'round'. ...
    """

    model: MagicLensModel
    tokenizer: MagicLensTokenizer

    def __init__(self, model: MagicLensModel, tokenizer: MagicLensTokenizer, *, weights_sha256: str) -> None:
        side = model.config.vision.image_size
        super().__init__(
            model,
            tokenizer,
            weights_sha256=weights_sha256,
            image_dtype=np.float32,
            image_shape=(3, side, side),
        )

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | os.PathLike[str] = BASE.name,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool | None = None,
        token: str | bool | None = None,
    ) -> MagicLens:
        """Load a model from this machine, or a conversion from the hub.

        Args:
            model_name: a released file (``magic_lens_clip_base.pkl``, ``magic_lens_clip_large.pkl``), or a
                folder with one, or a folder that :meth:`save_pretrained` or :func:`convert_checkpoint`
                wrote; or ``magiclens-base`` (512 dimensions) or ``magiclens-large`` (768), which are looked
                for in the cache folder; or the id of a repository on the hub that holds such a folder.
            device: where to run; None takes the first there is of CUDA, MPS and the CPU.
            dtype: ``float32``, ``bfloat16`` or ``float16``, of the towers; None takes bfloat16 where the
                hardware multiplies matrices in it, else float32. The fusion head runs in float32.
            cache_folder: folder of the hub's cache; None takes the usual one.
            revision: branch, tag or commit of the repository.
            local_files_only: do not ask the hub; None asks unless ``HF_HUB_OFFLINE`` is set.
            token: access token for the hub.

        Raises:
            ModelFilesError: an OSError; the name is unknown, or files are missing: it says where to get them.
            CheckpointError: a ValueError; the weights file is damaged or does not fit the model.
            ValueError: device, dtype, ``config.json`` or tokenizer cannot be used.
        """
        device = resolve_device(device)
        dtype = resolve_dtype(dtype, device)
        hub = HubOptions(cache_folder, revision, local_files_only, token)
        files = open_model_files(model_name, hub)
        return cls._from_weights(files.weights, files.tokenizer_folder, device, dtype)

    @classmethod
    def from_config(cls, config: MagicLensConfig, *, seed: int = 0) -> MagicLens:
        """Make a model of random weights, in float32 on the CPU, to try things out without a checkpoint.

        Args:
            config: sizes of all parts.
            seed: equal seeds give equal models.
        """
        weights = random_weights(config, seed)
        return cls._from_weights(weights, TOKENIZER_FOLDER, torch.device("cpu"), torch.float32)

    @classmethod
    def _from_weights(
        cls, weights: Weights, tokenizer_folder: Path, device: torch.device, dtype: torch.dtype
    ) -> MagicLens:
        tokenizer = MagicLensTokenizer.from_folder(tokenizer_folder, weights.config.text)
        model = meta_model(weights.config)
        digest = fill_model(model, weights, device=device, dtype=dtype)
        logger.info("Loaded %s on %s in %s.", weights.config.name, device, dtype)
        return cls(model, tokenizer, weights_sha256=digest)

    def preprocess(self, image: Image.Image) -> Float32Array:
        """Return what the model sees of a picture, which :meth:`encode` takes in its place.

        For callers that hold many decoded pictures before they embed them.

        Returns:
            The picture squashed to a square, in 0..1, (3, 224, 224) for the released models.

        Raises:
            ValueError: the picture is empty.
        """
        return squash_image(image, self.model.config.vision.image_size)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.model.config.fusion.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.clip.visual_projection.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type the towers run in; the head and embeddings are float32 in any case."""
        return self.model.clip.visual_projection.weight.dtype

    @property
    def image_tokens(self) -> int:
        """Tokens a picture takes in the vision tower."""
        return self.model.config.vision.num_patches + 1

    @property
    def max_text_tokens(self) -> int:
        """Longest text in tokens, the two special tokens included; longer ones are cut."""
        return self.model.config.text.max_position_embeddings

    @property
    def _preprocessing(self) -> str:
        return f"{PREPROCESSING_ID}-{self.model.config.vision.image_size}"

    def _save_weights(self, path: Path) -> None:
        save_model(self.model, path)

    def _layers(self) -> Sequence[torch.nn.Module]:
        clip = self.model.clip
        return [*clip.vision_model.encoder.layers, *clip.text_model.encoder.layers]

    def _token_limit(self, index: int, entry: Entry, tokens: Int64Array) -> int:
        if entry.image is None:
            raise ValueError(
                f"items[{index}] is a text without an image, and MagicLens embeds no text alone: "
                f"{entry.text!r}. Give it a picture that the text is about, or use Visualized BGE."
            )
        return self.max_text_tokens

    def _token_limits(self) -> str:
        return f"{self.max_text_tokens} tokens of a text"

    def _embed(self, ids: Sequence[Int64Array], images: Sequence[ImageArray]) -> torch.Tensor:
        rows = {tokens.tobytes(): tokens for tokens in ids}  # every text once
        numbers = {key: number for number, key in enumerate(rows)}
        text_index = torch.tensor([numbers[tokens.tobytes()] for tokens in ids])
        squares = self._to_device(self._stack(images))
        embeddings: torch.Tensor = self.model(
            self._to_device(self.tokenizer.pad(list(rows.values()))),
            normalize_squares(squares).to(self.dtype),
            self._to_device(text_index),
        )
        return embeddings
