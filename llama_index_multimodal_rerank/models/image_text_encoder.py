"""What encoders of texts and pictures share: a mixed list, in batches, to embeddings."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from .batching import best_batch_sizes, plan_batches
from .fast_tokenizer import FastTokenizer, Int64Array, truncate
from .items import Entry, Item, parse_items
from .prefetch import Prefetcher, lag_by_one
from .saved_encoder import ConfiguredModel, SavedEncoder

logger = logging.getLogger(__name__)

Float32Array = npt.NDArray[np.float32]
ImageArray = npt.NDArray[Any]

_TOKENIZE_AT_ONCE = 1024


class ImageTextEncoder(SavedEncoder):
    """Embeds texts, pictures, and pictures with a text: reading, batching, and memory that is too small.

    One instance may be used by several threads; the model runs for one of them at a time. A model says in
    its subclass how a picture and a text become its input, and runs on a batch of them.

    Args:
        model: the filled model.
        tokenizer: its tokenizer.
        weights_sha256: digest of the weights, for :attr:`fingerprint`.
        image_dtype: element type of what :meth:`preprocess` returns.
        image_shape: shape of what :meth:`preprocess` returns.
    """

    def __init__(
        self,
        model: ConfiguredModel,
        tokenizer: FastTokenizer,
        *,
        weights_sha256: str,
        image_dtype: npt.DTypeLike,
        image_shape: tuple[int, ...],
    ) -> None:
        super().__init__(model, tokenizer, weights_sha256=weights_sha256)
        self._image_dtype = np.dtype(image_dtype)
        self._image_shape = image_shape
        self._lock = threading.Lock()
        self._warned_of_memory = False

    @abstractmethod
    def preprocess(self, image: Image.Image) -> ImageArray:
        """Return what the model sees of a picture, which :meth:`encode` takes in its place."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model runs."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Floating point type the model runs in; embeddings are float32 in any case."""

    @property
    @abstractmethod
    def image_tokens(self) -> int:
        """Tokens a picture takes in the model."""

    @abstractmethod
    def _layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers that :meth:`compile` compiles, those of a kind one after the other."""

    @abstractmethod
    def _token_limit(self, index: int, entry: Entry, tokens: Int64Array) -> int:
        """Return how many tokens of an item's text the model reads; raise where it has no embedding."""

    @abstractmethod
    def _token_limits(self) -> str:
        """Return the limits in words, for the warning that texts were cut."""

    @abstractmethod
    def _embed(self, ids: Sequence[Int64Array], images: Sequence[ImageArray]) -> torch.Tensor:
        """Run the model on a batch of one kind, under the lock and in inference mode.

        Args:
            ids: token ids of every text.
            images: what :meth:`preprocess` made of every picture; empty for texts alone.

        Returns:
            Embeddings on the device, not normalised, (batch, dim).
        """

    def encode(
        self,
        items: Iterable[Item],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        show_progress: bool = False,
        on_batch: Callable[[int], object] | None = None,
    ) -> Float32Array:
        """Embed a list of texts, pictures and pairs of both.

        Functions that return pictures are called in threads, ahead of the model, a bounded number at a
        time, so a long list of them takes no more memory than a short one. What they raise is raised here.
        Texts too long for the model are cut, with a warning in the log.

        Args:
            items: each a text; or a PIL image, or a function without arguments that returns one, or what
                :meth:`preprocess` made of one; or a pair ``(text, image)`` of both, whose text may be ``""``.
            batch_size: items of one forward pass; fewer where they have more than 512 tokens. None takes
                what the device is fastest with: on a GPU 128 pictures or 256 texts, on a CPU 8 pictures or
                32 texts per thread of torch.
            normalize: scale embeddings to length 1, so that their dot product is the cosine similarity.
            show_progress: show a progress bar.
            on_batch: called with the number of items of every batch, once it is embedded.

        Returns:
            Embeddings in the order of the items, (items, dim).

        Raises:
            TypeError: an item is of no known type, or a function returned something else than a PIL image.
            ValueError: an item has no embedding, as an empty text without an image has none; an image
                cannot be used; an array is not of :meth:`preprocess`; or ``batch_size`` is not positive.
            FloatingPointError: an embedding is not finite.
            torch.OutOfMemoryError: not even one item fits into memory. Batches that do not fit are halved,
                with one warning in the log.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        sizes = batch_size or best_batch_sizes(self.device.type, torch.get_num_threads())
        entries = parse_items(items)
        ids = self._tokenize(entries)
        batches = plan_batches(
            [len(tokens) for tokens in ids],
            [entry.image is not None for entry in entries],
            image_tokens=self.image_tokens,
            batch_size=sizes,
        )
        images: dict[int, ImageArray] = {}
        to_load: dict[int, tuple[int, Image.Image | Callable[[], Image.Image]]] = {}
        for i in (i for batch in batches for i in batch):
            image = entries[i].image
            if isinstance(image, np.ndarray):
                images[i] = self._check_preprocessed(i, image)
            elif image is not None:
                to_load[i] = i, image
        embeddings = np.empty((len(entries), self.dim), dtype=np.float32)

        def forward(batch: list[int]) -> tuple[list[int], torch.Tensor]:
            images.update((i, loaded.take(i).result()) for i in batch if i in to_load)
            own = [images.pop(i) for i in batch if i in images]
            return batch, self._forward([ids[i] for i in batch], own, normalize)

        with (
            Prefetcher(self._load_image, to_load, ahead=2 * max(map(len, batches), default=1)) as loaded,
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
                if on_batch is not None:
                    on_batch(len(batch))
        return embeddings

    def compile(self) -> None:
        """Have torch compile the model's layers when they are next used.

        That takes from half a minute on, once for all layers of a kind, and needs a C++ compiler where the
        model runs on a CPU. Embeddings differ by rounding.
        """
        for layer in self._layers():
            layer.compile(dynamic=True)

    def _tokenize(self, entries: Sequence[Entry]) -> list[Int64Array]:
        ids: list[Int64Array] = []
        cut = 0
        for start in range(0, len(entries), _TOKENIZE_AT_ONCE):
            some = entries[start : start + _TOKENIZE_AT_ONCE]
            texts = list(dict.fromkeys(entry.text for entry in some))  # pictures alone have all the same
            tokens_of = dict(zip(texts, self.tokenizer(texts), strict=True))
            for entry in some:
                tokens = tokens_of[entry.text]
                limit = self._token_limit(len(ids), entry, tokens)
                cut += len(tokens) > limit
                ids.append(truncate(tokens, limit))
        if cut:
            logger.warning(
                "%d of %d texts were cut: the model reads %s.", cut, len(entries), self._token_limits()
            )
        return ids

    def _check_preprocessed(self, index: int, image: ImageArray) -> ImageArray:
        if image.dtype != self._image_dtype or image.shape != self._image_shape:
            raise ValueError(
                f"items[{index}] has an array of {image.dtype} {image.shape} for its picture; expected what "
                f"preprocess() returns, {self._image_dtype} {self._image_shape}."
            )
        return image

    def _load_image(self, picture: tuple[int, Image.Image | Callable[[], Image.Image]]) -> ImageArray:
        index, source = picture
        image = source if isinstance(source, Image.Image) else source()
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"The function of items[{index}] returned a {type(image).__name__}; expected a PIL image."
            )
        return self.preprocess(image)

    def _forward(
        self, ids: Sequence[Int64Array], images: Sequence[ImageArray], normalize: bool
    ) -> torch.Tensor:
        """Embed one batch, on the device; in halves, and halves of these, where memory is too small."""
        try:
            with self._lock, torch.inference_mode():
                embeddings = self._embed(ids, images).float()  # (batch, dim)
                return torch.nn.functional.normalize(embeddings, dim=-1) if normalize else embeddings
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
        parts = [(ids[:half], images[:half]), (ids[half:], images[half:])]
        return torch.cat([self._forward(*part, normalize) for part in parts])

    def _stack(self, images: Sequence[ImageArray]) -> torch.Tensor:
        """Copy pictures into one batch on the host, (batch, ...); pinned where it goes to a GPU."""
        shape = len(images), *self._image_shape
        batch = torch.empty(
            shape,
            dtype=torch.from_numpy(np.empty(0, self._image_dtype)).dtype,
            pin_memory=self.device.type == "cuda",
        )
        np.stack(images, out=batch.numpy())
        return batch

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        # From pinned memory it is copied while the GPU computes.
        if self.device.type == "cuda" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
