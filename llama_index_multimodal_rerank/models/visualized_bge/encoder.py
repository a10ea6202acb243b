"""The public face of the model: texts, pictures and pairs of both to embeddings."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..cuda_graphs import GraphCache
from ..digest import weights_digest
from ..errors import CheckpointError
from ..fast_tokenizer import Int64Array
from ..hardware import resolve_device, resolve_dtype
from ..hub import HubOptions
from ..image_text_encoder import ImageArray, ImageTextEncoder
from ..items import Entry
from .files import WEIGHTS_REPO, open_model_files
from .modeling import VisualizedBGEModel, meta_model
from .processing import (
    PREPROCESSING_ID,
    SPECIAL_TOKENS,
    TextTokenizer,
    Uint8Array,
    crop_image,
    normalize_crops,
)
from .state_dict import check_config, fill_model, is_used, save_model

logger = logging.getLogger(__name__)


class VisualizedBGE(ImageTextEncoder):
    """Embeds texts, pictures, and pictures with a text into one space.

    One instance may be used by several threads; the model runs for one of them at a time.

    Paper: https://arxiv.org/abs/2406.04292, model card: https://huggingface.co/BAAI/bge-visualized

    Args:
        model: the filled model.
        tokenizer: its tokenizer.
        weights_sha256: digest of the weights, for :attr:`fingerprint`.
    """

    model: VisualizedBGEModel
    tokenizer: TextTokenizer

    def __init__(self, model: VisualizedBGEModel, tokenizer: TextTokenizer, *, weights_sha256: str) -> None:
        side = model.config.vision.image_size
        super().__init__(
            model, tokenizer, weights_sha256=weights_sha256, image_dtype=np.uint8, image_shape=(side, side, 3)
        )
        self._empty_text = torch.from_numpy(tokenizer([""])[0]).to(self.device)
        on_gpu = self.device.type == "cuda"
        self._graphs = GraphCache(self._embed_crops, self.device) if on_gpu else None

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | os.PathLike[str] = WEIGHTS_REPO,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool | None = None,
        token: str | bool | None = None,
    ) -> VisualizedBGE:
        """Load a model from the hub, its cache, or this machine.

        Args:
            model_name: ``BAAI/bge-visualized`` or ``BAAI/bge-visualized-base-en-v1.5`` (English, 768
                dimensions); ``BAAI/bge-visualized-m3`` (multilingual, 1024 dimensions); or a path: a
                weights file (``.safetensors``, ``.pth``) or a folder with one, the tokenizer and
                ``config.json`` beside it.
            device: where to run; None takes the first there is of CUDA, MPS and the CPU.
            dtype: ``float32``, ``bfloat16`` or ``float16``; None takes bfloat16 where the hardware multiplies
                matrices in it, else float32.
            cache_folder: folder of the hub's cache; None takes the usual one.
            revision: branch, tag or commit of the repository of the weights.
            local_files_only: do not ask the hub; None asks unless ``HF_HUB_OFFLINE`` is set.
            token: access token for the hub.

        Raises:
            ModelFilesError: an OSError; the name is unknown, or files are missing and cannot be downloaded.
            CheckpointError: a ValueError; the weights file is damaged or does not fit the model.
            ValueError: device, dtype, ``config.json`` or tokenizer cannot be used.
            ImportError: timm cannot be imported.
        """
        device = resolve_device(device)
        dtype = resolve_dtype(dtype, device)
        hub = HubOptions(cache_folder, revision, local_files_only, token)
        files = open_model_files(model_name, hub)
        tokenizer = TextTokenizer.from_folder(files.tokenizer_folder, files.config)
        try:
            check_config(files.config, files.tensors)
            model = meta_model(files.config)
            fill_model(model, files.tensors, device=device, dtype=dtype)
        except CheckpointError as error:
            raise CheckpointError(f"{files.weights}: {error}") from error
        used = {key: tensor for key, tensor in files.tensors.items() if is_used(key)}
        used["rope_table"] = model.vision.rope_table.cpu()
        logger.info("Loaded %s on %s in %s.", files.config.name, device, dtype)
        return cls(model, tokenizer, weights_sha256=weights_digest(used))

    def compile(self) -> None:
        """Have torch compile the layers; see :meth:`ImageTextEncoder.compile`."""
        if self._graphs is not None:  # of the layers as they were
            self._graphs.clear()
        super().compile()

    def preprocess(self, image: Image.Image) -> Uint8Array:
        """Return what the model sees of a picture, which :meth:`encode` takes in its place.

        For callers that hold many decoded pictures before they embed them.

        Returns:
            RGB crop, (224, 224, 3) for the released models.

        Raises:
            ValueError: the picture is empty, or longer than 1000 times its width.
        """
        return crop_image(image, self.model.config.vision.image_size)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.model.config.text.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.visual_proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type the model runs in; embeddings are float32 in any case."""
        return self.model.visual_proj.weight.dtype

    @property
    def image_tokens(self) -> int:
        """Tokens a picture takes in the text encoder."""
        return self.model.config.vision.num_patches

    @property
    def max_text_tokens(self) -> int:
        """Longest text in tokens, the two special tokens included; longer ones are cut."""
        return self.model.config.text.max_tokens

    @property
    def max_text_tokens_with_image(self) -> int:
        """Longest text in tokens beside a picture, the two special tokens included; longer ones are cut."""
        return self.model.config.max_tokens_with_image

    @property
    def _preprocessing(self) -> str:
        return f"{PREPROCESSING_ID}-{self.model.config.vision.image_size}"

    def _save_weights(self, path: Path) -> None:
        save_model(self.model, path)

    def _layers(self) -> Sequence[torch.nn.Module]:
        return [*self.model.vision.eva.blocks, *self.model.text.encoder.layer]

    def _token_limit(self, index: int, entry: Entry, tokens: Int64Array) -> int:
        if entry.image is not None:
            return self.max_text_tokens_with_image
        if len(tokens) <= 2:
            raise ValueError(
                f"items[{index}] is a text without an image, and the tokenizer reads nothing in it: "
                f"{entry.text!r} has no embedding."
            )
        return self.max_text_tokens

    def _token_limits(self) -> str:
        return (
            f"{self.max_text_tokens} tokens of a text alone and {self.max_text_tokens_with_image} beside an "
            f"image"
        )

    def _embed_crops(self, crops: torch.Tensor) -> torch.Tensor:
        """Embed pictures alone; captured in CUDA graphs, so nothing is copied from the host here.

        Args:
            crops: uint8, (batch, side, side, 3), on the device.

        Returns:
            (batch, dim).
        """
        ids = self._empty_text.expand(len(crops), -1)
        embeddings: torch.Tensor = self.model(ids, None, normalize_crops(crops).to(self.dtype))
        return embeddings

    def _embed(self, ids: Sequence[Int64Array], images: Sequence[ImageArray]) -> torch.Tensor:
        pixel_values = None
        if images:
            crops = self._stack(images)
            if self._graphs is not None and all(len(tokens) == SPECIAL_TOKENS for tokens in ids):
                return self._graphs(crops)
            pixel_values = normalize_crops(self._to_device(crops)).to(self.dtype)
        input_ids, attention_mask = self.tokenizer.pad(ids)
        # Pictures alone are all of one length: nothing is padded, and torch may take its fastest kernels.
        padded = len({len(tokens) for tokens in ids}) > 1
        embeddings: torch.Tensor = self.model(
            self._to_device(input_ids), self._to_device(attention_mask) if padded else None, pixel_values
        )
        return embeddings
