"""The public face of the model: texts, pictures and pairs of both to embeddings."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from ..batching import plan_batches
from ..hardware import resolve_device, resolve_dtype
from ..prefetch import Prefetcher, lag_by_one
from .digest import weights_digest
from .errors import CheckpointError
from .hub import CONFIG_NAME, WEIGHTS_NAME, WEIGHTS_REPO, HubOptions, open_model_files
from .items import Entry, Item, parse_items
from .modeling import VisualizedBGEModel, meta_model
from .processing import (
    PREPROCESSING_ID,
    Int64Array,
    TextTokenizer,
    Uint8Array,
    crop_image,
    normalize_crops,
    truncate,
)
from .state_dict import fill_model, is_used, save_model

logger = logging.getLogger(__name__)

Float32Array = npt.NDArray[np.float32]

_TOKENIZE_AT_ONCE = 1024


class VisualizedBGE:
    """Embeds texts, pictures, and pictures with a text into one space.

    One instance may be used by several threads; the model runs for one of them at a time.

    Paper: https://arxiv.org/abs/2406.04292, model card: https://huggingface.co/BAAI/bge-visualized

    Args:
        model: the filled model.
        tokenizer: its tokenizer.
        weights_sha256: digest of the weights, for :attr:`fingerprint`.
    """

    def __init__(self, model: VisualizedBGEModel, tokenizer: TextTokenizer, *, weights_sha256: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._weights_sha256 = weights_sha256
        self._lock = threading.Lock()
        self._warned_of_memory = False

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
        hub = HubOptions(
            cache_folder=None if cache_folder is None else os.fspath(cache_folder),
            revision=revision,
            local_files_only=local_files_only,
            token=token,
        )
        files = open_model_files(model_name, hub)
        tokenizer = TextTokenizer.from_folder(files.tokenizer_folder, files.config)
        model = meta_model(files.config)
        try:
            fill_model(model, files.tensors, device=device, dtype=dtype)
        except CheckpointError as error:
            raise CheckpointError(f"{files.weights}: {error}") from error
        used = {key: tensor for key, tensor in files.tensors.items() if is_used(key)}
        used["rope_table"] = model.vision.rope_table.cpu()
        logger.info("Loaded %s on %s in %s.", files.config.name, device, dtype)
        return cls(model, tokenizer, weights_sha256=weights_digest(used))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write configuration, tokenizer and weights into a folder that :meth:`from_pretrained` reads.

        The weights are a safetensors file under the keys of the released files, in the current dtype.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.tokenizer.save_pretrained(folder)
        self.model.config.to_json_file(folder / CONFIG_NAME)
        save_model(self.model, folder / WEIGHTS_NAME)

    def encode(
        self,
        items: Iterable[Item],
        *,
        batch_size: int = 32,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> Float32Array:
        """Embed a list of texts, pictures and pairs of both.

        Functions that return pictures are called in threads, ahead of the model, a bounded number at a
        time, so a long list of them takes no more memory than a short one. What they raise is raised here.
        Texts too long for the model are cut, with a warning in the log.

        Args:
            items: each a text; or a PIL image, or a function without arguments that returns one, or what
                :meth:`preprocess` made of one; or a pair ``(text, image)`` of both, whose text may be ``""``.
            batch_size: items of one forward pass; fewer where they have more than 512 tokens.
            normalize: scale embeddings to length 1, so that their dot product is the cosine similarity.
            show_progress: show a progress bar.

        Returns:
            Embeddings in the order of the items, (items, dim).

        Raises:
            TypeError: an item is of no known type, or a function returned something else than a PIL image.
            ValueError: an item is an empty text without an image, an image is empty or far too narrow, an
                array is not of :meth:`preprocess`, or ``batch_size`` is not positive.
            FloatingPointError: an embedding is not finite.
            torch.OutOfMemoryError: not even one item fits into memory. Batches that do not fit are halved,
                with one warning in the log.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        entries = parse_items(items)
        ids = self._tokenize(entries)
        batches = plan_batches(
            [len(tokens) for tokens in ids],
            [entry.image is not None for entry in entries],
            image_tokens=self.image_tokens,
            batch_size=batch_size,
        )
        crops: dict[int, Uint8Array] = {}
        to_load: dict[int, tuple[int, Image.Image | Callable[[], Image.Image]]] = {}
        for i in (i for batch in batches for i in batch):
            image = entries[i].image
            if isinstance(image, np.ndarray):
                crops[i] = self._check_crop(i, image)
            elif image is not None:
                to_load[i] = i, image
        embeddings = np.empty((len(entries), self.dim), dtype=np.float32)

        def forward(batch: list[int]) -> tuple[list[int], torch.Tensor]:
            crops.update((i, loaded.take(i).result()) for i in batch if i in to_load)
            own = [crops.pop(i) for i in batch if i in crops]
            return batch, self._forward([ids[i] for i in batch], own, normalize)

        with (
            Prefetcher(self._load_crop, to_load, ahead=2 * batch_size) as loaded,
            tqdm(total=len(entries), desc="Embedding", disable=not show_progress) as progress,
        ):
            for batch, vectors in lag_by_one(map(forward, batches)):
                embeddings[batch] = vectors.cpu().numpy()
                finite = np.isfinite(embeddings[batch]).all(axis=1)
                if not finite.all():
                    raise FloatingPointError(
                        f"The embedding of items[{batch[int(finite.argmin())]}] is not finite in "
                        f"{self.dtype}; load the model with dtype='float32'. If it stays so, the weights are "
                        f"damaged."
                    )
                progress.update(len(batch))
        return embeddings

    def compile(self) -> None:
        """Have torch compile the layers of both encoders when they are next used.

        That takes from half a minute on, once for all layers of a kind, and needs a C++ compiler where the
        model runs on a CPU. Embeddings differ by rounding.
        """
        for layer in (*self.model.vision.eva.blocks, *self.model.text.encoder.layer):
            layer.compile(dynamic=True)

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
    def fingerprint(self) -> dict[str, str]:
        """What tells this embedding space from others: equal fingerprints give comparable embeddings.

        ``model`` (name), ``weights_sha256`` (over the values of the tensors, the same for a ``.pth`` and a
        ``.safetensors`` file and for any device and dtype the model runs in), ``preprocessing`` and ``dim``.
        """
        return {
            "model": self.model.config.name,
            "weights_sha256": self._weights_sha256,
            "preprocessing": f"{PREPROCESSING_ID}-{self.model.config.vision.image_size}",
            "dim": str(self.dim),
        }

    def _tokenize(self, entries: Sequence[Entry]) -> list[Int64Array]:
        ids: list[Int64Array] = []
        cut = 0
        for start in range(0, len(entries), _TOKENIZE_AT_ONCE):
            some = entries[start : start + _TOKENIZE_AT_ONCE]
            for entry, tokens in zip(some, self.tokenizer([entry.text for entry in some]), strict=True):
                if entry.image is None and len(tokens) <= 2:
                    raise ValueError(
                        f"items[{len(ids)}] is a text without an image, and the tokenizer reads nothing in "
                        f"it: {entry.text!r} has no embedding."
                    )
                limit = self.max_text_tokens if entry.image is None else self.max_text_tokens_with_image
                cut += len(tokens) > limit
                ids.append(truncate(tokens, limit))
        if cut:
            logger.warning(
                "%d of %d texts were cut: the model reads %d tokens of a text alone and %d beside an image.",
                cut,
                len(entries),
                self.max_text_tokens,
                self.max_text_tokens_with_image,
            )
        return ids

    def _check_crop(self, index: int, crop: Uint8Array) -> Uint8Array:
        side = self.model.config.vision.image_size
        if crop.dtype != np.uint8 or crop.shape != (side, side, 3):
            raise ValueError(
                f"items[{index}] has an array of {crop.dtype} {crop.shape} for its picture; expected what "
                f"preprocess() returns, uint8 {(side, side, 3)}."
            )
        return crop

    def _load_crop(self, picture: tuple[int, Image.Image | Callable[[], Image.Image]]) -> Uint8Array:
        index, source = picture
        image = source if isinstance(source, Image.Image) else source()
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"The function of items[{index}] returned a {type(image).__name__}; expected a PIL image."
            )
        return crop_image(image, self.model.config.vision.image_size)

    def _forward(
        self, ids: Sequence[Int64Array], crops: Sequence[Uint8Array], normalize: bool
    ) -> torch.Tensor:
        """Embed one batch, on the device; in halves, and halves of these, where memory is too small."""
        try:
            return self._forward_at_once(ids, crops, normalize)
        except torch.OutOfMemoryError:
            if len(ids) == 1:
                raise
        # Not in the except clause: its traceback would keep the tensors of the failed attempt alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(ids) // 2
        if not self._warned_of_memory:
            self._warned_of_memory = True
            logger.warning(
                "A batch of %d did not fit into the memory of %s and was halved. A batch_size of %d or less "
                "saves the failed attempts.",
                len(ids),
                self.device,
                half,
            )
        parts = [(ids[:half], crops[:half]), (ids[half:], crops[half:])]
        return torch.cat([self._forward(*part, normalize) for part in parts])

    def _forward_at_once(
        self, ids: Sequence[Int64Array], crops: Sequence[Uint8Array], normalize: bool
    ) -> torch.Tensor:
        input_ids, attention_mask = self.tokenizer.pad(ids)
        with self._lock, torch.inference_mode():
            pixel_values = None
            if crops:
                pixels = self._to_device(torch.from_numpy(np.stack(crops)))
                pixel_values = normalize_crops(pixels).to(self.dtype)
            embeddings: torch.Tensor = self.model(
                self._to_device(input_ids), self._to_device(attention_mask), pixel_values
            ).float()  # (batch, dim)
            if normalize:
                embeddings = torch.nn.functional.normalize(embeddings, dim=-1)
        return embeddings

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda":  # from pinned memory it is copied while the GPU computes
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
