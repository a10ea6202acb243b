"""MagicLensEmbedding: LlamaIndex integration of MagicLens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field

from .image_text_embedding import ImageTextEmbedding
from .local_model import LocalModelEmbedding

if TYPE_CHECKING:
    from ..models.magiclens import MagicLens

DEFAULT_MODEL_NAME = "magiclens-base"


class MagicLensEmbedding(LocalModelEmbedding, ImageTextEmbedding):
    """Picture, or picture + instruction, into one vector, with MagicLens.

    The catalogue's pictures are embedded alone, the query's picture with what is asked of it ("the same
    bridge, but at night"). A text without a picture is an error: the model has no embedding of it, and an
    empty picture in its place would find nonsense. For collections that are searched by words alone, too,
    take :class:`~llama_index_multimodal_rerank.VisualizedBGEEmbedding`.

    The model is loaded on first use, once, also when many threads ask at the same time.
    Copies (``copy``, ``deepcopy``) share it; pickles leave it behind and load it again.

    Where LlamaIndex passes strings, an :class:`ImageText` is embedded as picture + text.

    Example:
        A model of random weights, small enough for a notebook, saved and used. It knows nothing; the released
        weights are where ``MagicLensEmbedding().model`` says.

        >>> import tempfile
        >>> from llama_index_multimodal_rerank import ImageText, MagicLensEmbedding
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.models.magiclens import (
        ...     FusionConfig, MagicLens, MagicLensConfig, TextConfig, VisionConfig)
        >>> sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        >>> config = MagicLensConfig(
        ...     name="tiny",
        ...     text=TextConfig(hidden_size=16, **sizes),
        ...     vision=VisionConfig(hidden_size=16, patch_size=32, **sizes),
        ...     fusion=FusionConfig(hidden_size=16, pooler_size=64, **sizes),
        ... )
        >>> folder = tempfile.TemporaryDirectory()
        >>> MagicLens.from_config(config, seed=0).save_pretrained(folder.name)
        >>> embed_model = MagicLensEmbedding(model_name=folder.name)
        >>> shop = [draw_query_picture(pattern, seed=1) for pattern in ("leopard", "plaid")]
        >>> vectors = embed_model.encode([ImageText("", image) for image in shop])
        >>> leopard = draw_query_picture("leopard", seed=0)
        >>> query = embed_model.get_query_embedding(ImageText("an umbrella with this print", leopard))
        >>> (vectors @ query).shape
        (2,)
        >>> folder.cleanup()

    Raises:
        ValueError: at construction (pydantic's ValidationError), a field has a value that it does not allow.
            At first use, the checkpoint, ``device`` or ``dtype`` cannot be used. From all that embed,
            a text without a picture, or a text that names a picture it does not carry.
        OSError: at first use, the checkpoint is not there; the message says where the released ones are.
        ImageLoadError: from every method that embeds, a picture cannot be read; a ValueError.

    Source: "MagicLens: Self-Supervised Image Retrieval with Open-Ended Instructions", arXiv:2403.19651.
    """

    model_name: str = Field(
        default=DEFAULT_MODEL_NAME,
        description="Checkpoint: 'magiclens-base' or 'magiclens-large', looked for in the cache folder; or "
        "the path of a released .pkl file, or of a folder with one or with a converted one; or the id of a "
        "repository on the hub that holds a converted one.",
    )

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "MagicLensEmbedding"

    @property
    def model(self) -> MagicLens:
        """The model, loaded now if it was not before.

        Raises:
            OSError: the checkpoint is not there.
            ValueError: the checkpoint, ``device`` or ``dtype`` is not usable.
        """
        model: MagicLens = self._loader.get(self._load)
        return model

    def _load(self) -> MagicLens:
        from ..models.magiclens import MagicLens

        model: MagicLens = self._from_pretrained(MagicLens, self.model_name)
        return model

    def _to_item(self, text: str) -> str | tuple[str, Any]:
        item = super()._to_item(text)
        if isinstance(item, str) and item.strip():  # an empty text gets the error that all models give
            raise ValueError(
                f"MagicLens embeds no text alone, but a picture, or a picture with a text: {item[:200]!r}. "
                "Give the picture that the text is about: ImageTextQuery(text, image_path=...), "
                "ImageText(text, image). To search by words, too, index with VisualizedBGEEmbedding."
            )
        return item
