"""LocalModelEmbedding: an embedding model in this process, and how it is loaded."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from llama_index.core.bridge.pydantic import Field, PrivateAttr

from ..lazy import LazyModel
from .model_embedding import ModelEmbedding
from .progress import on_batch

BY_DEVICE = 256
"""The default of ``embed_batch_size``, which lets the model choose its batches; a number, because LlamaIndex
cuts lists by it."""

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    from ..schema.image_text import ImageText


class ImageTextModel(Protocol):
    """A model that embeds texts, pictures and pairs of both into one space."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    @property
    def fingerprint(self) -> dict[str, str]:
        """What tells the model's embedding space from others."""
        ...

    def preprocess(self, image: Image) -> Any:
        """Return what the model sees of a picture; small, and accepted by :meth:`encode` in its place."""
        ...

    def encode(
        self,
        items: Sequence[str | tuple[str, Any]],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        show_progress: bool = False,
        on_batch: Callable[[int], object] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Embed items in order: texts, and pairs of a text (may be ``""``) and a picture.

        A picture is what :meth:`preprocess` returned, or a function without arguments that returns a PIL
        image; functions are called in threads ahead of the model. ``batch_size`` None follows the device.
        ``on_batch`` is called with the number of items of every batch, once it is embedded.

        Returns:
            Embeddings, (items, dim).
        """
        ...


class LocalModelEmbedding(ModelEmbedding):
    """The settings of a model in this process, and the model behind them; goes before ImageTextEmbedding.

    The model is loaded on first use, once, also when many threads ask at the same time.
    Copies (``copy``, ``deepcopy``) share it; pickles leave it behind and load it again.
    """

    device: str | None = Field(
        default=None, description="Torch device, such as 'cuda:0'. Default: the best one there is."
    )
    dtype: str | None = Field(
        default=None,
        description="'float32', 'bfloat16' or 'float16'. "
        "Default: bfloat16 where the hardware computes in it, float32 elsewhere.",
    )
    embed_batch_size: int = Field(
        default=BY_DEVICE,
        gt=0,
        le=2048,
        description="Items embedded in one call of the model. Default: LlamaIndex hands over 256 at a time, "
        "and the model takes as many at once as its device is fastest with: a GPU 128 pictures or 256 texts, "
        "a CPU 8 pictures or 32 texts per thread. Set another number to save memory, or to use more of it.",
    )
    normalize: bool = Field(default=True, description="Scale vectors to length 1.")
    torch_compile: bool = Field(
        default=False,
        description="Compile the model's layers with torch.compile: faster once half a minute or more has "
        "gone into it. Needs a C++ compiler where the model runs on a CPU.",
    )
    cache_folder: str | None = Field(
        default=None, description="Where hub files are kept. Default: the hub's own cache."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    local_files_only: bool = Field(
        default=False, description="Never ask the hub. HF_HUB_OFFLINE=1 has the same effect."
    )
    apply_exif_orientation: bool = Field(
        default=False,
        description="Turn photographs as their EXIF tag says. The reference implementation does not, "
        "so vectors of turned photographs differ from its own. Index and query with the same value.",
    )
    _loader: LazyModel[Any] = PrivateAttr(default_factory=LazyModel)

    @abstractmethod
    def _load(self) -> ImageTextModel:
        """Load the model; called once."""

    def _from_pretrained(self, model_class: Any, model_name: str | os.PathLike[str]) -> Any:
        """Load a model of a class of ``models/`` with this object's settings."""
        model = model_class.from_pretrained(
            model_name,
            device=self.device,
            dtype=self.dtype,
            cache_folder=self.cache_folder,
            revision=self.revision,
            # None leaves the decision to HF_HUB_OFFLINE.
            local_files_only=self.local_files_only or None,
        )
        if self.torch_compile:
            model.compile()
        return model

    @property
    def model(self) -> ImageTextModel:
        """The model, loaded now if it was not before."""
        model: ImageTextModel = self._loader.get(self._load)
        return model

    @property
    def _model_batch_size(self) -> int | None:
        """What the model is told to take at once; None leaves it to the model."""
        return None if self.embed_batch_size == BY_DEVICE else self.embed_batch_size

    @property
    def dim(self) -> int:
        """Length of the vectors. Loads the model."""
        return self.model.dim

    @property
    def fingerprint(self) -> dict[str, str]:
        """What makes vectors comparable: weights, preprocessing, dimension. Loads the model."""
        return {
            **self.model.fingerprint,
            "normalize": str(self.normalize),
            "apply_exif_orientation": str(self.apply_exif_orientation),
        }

    def _encode_items(
        self, items: Sequence[str | tuple[str, Any]], *, show_progress: bool
    ) -> npt.NDArray[np.float32]:
        return self.model.encode(
            items,
            batch_size=self._model_batch_size,
            normalize=self.normalize,
            show_progress=show_progress,
            on_batch=on_batch(),
        )

    def _load_image(self, text: ImageText) -> Image:
        return self._access.load(
            text.image,  # type: ignore[arg-type]
            apply_exif_orientation=self.apply_exif_orientation,
            expected_digest=text.expected_digest,
            note_digest=text.note_digest if text.awaits_digest else None,
        )

    def _prepare_image(self, text: ImageText) -> Any:
        # The model is loaded for the first picture, so not where there is none.
        return self.model.preprocess(self._load_image(text))
