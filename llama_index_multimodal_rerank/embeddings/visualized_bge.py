"""VisualizedBGEEmbedding: LlamaIndex integration of Visualized BGE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index.core.bridge.pydantic import Field

from ..demo.checkpoints import DEMO, checkpoint_folder
from .image_text_embedding import ImageTextEmbedding
from .local_model import LocalModelEmbedding

if TYPE_CHECKING:
    from ..models.visualized_bge import VisualizedBGE

DEFAULT_MODEL_NAME = "BAAI/bge-visualized"


class VisualizedBGEEmbedding(LocalModelEmbedding, ImageTextEmbedding):
    """Text, picture, or picture + text into one vector, with Visualized BGE.

    The model is loaded on first use, once, also when many threads ask at the same time.
    Copies (``copy``, ``deepcopy``) share it; pickles leave it behind and load it again.

    Where LlamaIndex passes strings, an :class:`ImageText` is embedded as picture + text. A plain
    string is embedded as text. An empty one is an error, and so is a text that names one of our
    pictures without carrying it (what a text splitter leaves of a picture).

    ``model_name="demo"`` is a tiny model that comes with this package, for trying things out offline: it was
    trained on drawn products alone (``llama_index_multimodal_rerank.demo``) and is of no use for photographs.

    Example:
        Which of three products is the umbrella with the print of the picture?

        >>> from llama_index_multimodal_rerank import ImageText, VisualizedBGEEmbedding
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.demo.drawing.looks import Look
        >>> products = ["mug leopard yellow", "umbrella leopard yellow", "mug plain blue"]
        >>> shop = [draw_query_picture(Look(*product.split()), seed=1) for product in products]
        >>> embed_model = VisualizedBGEEmbedding(model_name="demo")
        >>> vectors = embed_model.encode([ImageText("", image) for image in shop])
        >>> leopard = draw_query_picture("leopard", seed=0)
        >>> query = embed_model.get_query_embedding(ImageText("umbrella with this print", leopard))
        >>> products[(vectors @ query).argmax()]
        'umbrella leopard yellow'

    Raises:
        ValueError: at construction (pydantic's ValidationError), a field has a value that it does not allow.
            At first use, the checkpoint, ``device`` or ``dtype`` cannot be used. From all that embed,
            an empty text, or a text that names a picture it does not carry.
        OSError: at first use, the checkpoint is not there and cannot be fetched.
        ImageLoadError: from every method that embeds, a picture cannot be read; a ValueError.

    Source: "VISTA: Visualized Text Embedding For Universal Multi-Modal Retrieval",
    arXiv:2406.04292, and the model card ``BAAI/bge-visualized``.
    """

    model_name: str = Field(
        default=DEFAULT_MODEL_NAME,
        description="Checkpoint: a name on the hub, or the path of a local file or folder; or 'demo', a tiny "
        "model in this package that was trained on drawings and knows nothing else. For a folder called "
        "demo write './demo'.",
    )

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "VisualizedBGEEmbedding"

    @property
    def model(self) -> VisualizedBGE:
        """The model, loaded now if it was not before.

        Raises:
            OSError: the checkpoint is not there and cannot be fetched.
            ValueError: the checkpoint, ``device`` or ``dtype`` is not usable.
        """
        model: VisualizedBGE = self._loader.get(self._load)
        return model

    def _load(self) -> VisualizedBGE:
        from ..models.visualized_bge import VisualizedBGE

        name = checkpoint_folder("embedder") if self.model_name == DEMO else self.model_name
        model: VisualizedBGE = self._from_pretrained(VisualizedBGE, name)
        return model
