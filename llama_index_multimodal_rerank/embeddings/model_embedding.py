"""ModelEmbedding: what an image-text embedding has wherever its model runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field, field_validator
from llama_index.core.embeddings import MultiModalEmbedding

from ..images.access import ImageAccess
from ..images.url_hosts import check_allow_urls

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..schema.image_text import ImageText


class ModelEmbedding(MultiModalEmbedding):
    """The settings of all image-text embeddings, and what a subclass says about its model."""

    embed_batch_size: int = Field(
        default=256, gt=0, le=2048, description="Items that LlamaIndex hands over at a time."
    )
    allow_urls: bool | list[str] = Field(
        default=False,
        description="Fetch pictures given as http(s) URLs, in documents as in queries: true for public "
        "addresses, or a list of the hosts to fetch from ('images.example.org', 'localhost:8000'), which may "
        "be private.",
    )
    data_root: str | None = Field(
        default=None,
        description="The only folder that picture files are read from, '..' and symbolic links resolved. Set "
        "it where paths come from others. Default: any file that the process may read.",
    )
    show_progress_bar: bool = Field(
        default=False,
        description="Show a progress bar where LlamaIndex forwards no show_progress: in pipelines, whose own "
        "bar counts transformations.",
    )

    @field_validator("allow_urls", mode="before")
    @classmethod
    def _check_allow_urls(cls, allow_urls: Any) -> Any:
        return check_allow_urls(allow_urls)

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of the vectors."""

    @property
    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """What makes vectors comparable: weights, preprocessing, dimension."""

    @abstractmethod
    def _encode_items(
        self, items: Sequence[str | tuple[str, Any]], *, show_progress: bool
    ) -> npt.NDArray[np.float32]:
        """Embed items in order.

        Args:
            items: texts, and pairs of a text and a picture: what :meth:`_prepare_image` returned, or a
                function that returns what :meth:`_load_image` does.
            show_progress: show a progress bar.

        Returns:
            Vectors, (items, dim).
        """

    @abstractmethod
    def _load_image(self, text: ImageText) -> Any:
        """Read a text's picture, in a thread, as the model takes it from a function."""

    @abstractmethod
    def _prepare_image(self, text: ImageText) -> Any:
        """Read a text's picture ahead of the model, as small as the model lets it be."""

    @property
    def _access(self) -> ImageAccess:
        urls = self.allow_urls
        return _access(tuple(urls) if isinstance(urls, list) else urls, self.data_root)


@lru_cache(maxsize=16)
def _access(allow_urls: bool | tuple[str, ...], data_root: str | None) -> ImageAccess:
    # Asked for with every picture.
    return ImageAccess(allow_urls, data_root)
