"""Models: the embedding and the reranker of a page or a command line, chosen by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..demo.checkpoints import DEMO
from ..embeddings.magiclens import MagicLensEmbedding
from ..embeddings.visualized_bge import DEFAULT_MODEL_NAME as DEFAULT_EMBEDDING
from ..embeddings.visualized_bge import VisualizedBGEEmbedding
from ..reranking.options import Explain, StrategyName
from ..reranking.postprocessor import Phi3VisionRerank
from ..vlm.protocols import LoadableModel
from ..vlm.resolve import DEFAULT_MODEL_NAME as DEFAULT_RERANKER

if TYPE_CHECKING:
    from ..embeddings.image_text_embedding import ImageTextEmbedding

__all__ = ["DEFAULT_EMBEDDING", "DEFAULT_RERANKER", "DEMO", "ModelChoice", "Models", "embedding_of"]


@dataclass(frozen=True)
class ModelChoice:
    """Which models are meant; None leaves it to what is searched.

    Attributes:
        embedding: Visualized BGE (name on the hub, file or folder), MagicLens (a name or path with
            "magiclens" in it), or ``"demo"``. Default: the one that filled the collection, else the released
            Visualized BGE; for the demo's catalogue the demo's.
        reranker: Phi-3 Vision (name on the hub or folder), or ``"demo"``. Default: the demo's where the
            embedding is the demo's, else the released one.
        device: torch device of both. Default: the best one there is.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``. Default: what the hardware computes in.
    """

    embedding: str | None = None
    reranker: str | None = None
    device: str | None = None
    dtype: str | None = None


class Models:
    """An embedding and a reranker; each is loaded on first use, once, for any number of threads.

    Args:
        embedding: as ``ModelChoice.embedding``.
        choice: the other choices.

    Attributes:
        embed_model: the embedding; pictures that it cannot read it leaves out of an index, and names.
        embedding_name: what it was chosen by.
        reranker_name: what the reranker was chosen by.
    """

    def __init__(self, embedding: str, choice: ModelChoice | None = None) -> None:
        choice = choice or ModelChoice()
        self.embedding_name = embedding
        self.embed_model = embedding_of(embedding, device=choice.device, dtype=choice.dtype)
        default = DEMO if embedding == DEMO else DEFAULT_RERANKER
        self.reranker_name = choice.reranker or default
        self._reranker = Phi3VisionRerank(model=self.reranker_name, device=choice.device, dtype=choice.dtype)

    def reranker(
        self,
        strategy: StrategyName = "listwise",
        *,
        top_n: int = 9,
        explain: Explain | None = None,
        save_sheets: Path | None = None,
    ) -> Phi3VisionRerank:
        """Return a reranker with settings of its own, on the one model and the captions that all share.

        Args:
            strategy: how sheets are ranked.
            top_n: nodes to return, 1 or more.
            explain: ask why the best is the best, see ``Phi3VisionRerank``.
            save_sheets: folder to save the sheets in.
        """
        settings = {"strategy": strategy, "top_n": top_n, "explain": explain, "save_sheets": save_sheets}
        return self._reranker.model_copy(update=settings)

    def load_reranker(self) -> None:
        """Load the reranker's model, unless it is.

        Raises:
            OSError: it is not there and cannot be fetched.
        """
        model = self._reranker.vision_language_model
        if isinstance(model, LoadableModel):
            model.load()


def embedding_of(name: str, *, device: str | None = None, dtype: str | None = None) -> ImageTextEmbedding:
    """Return the embedding of a name: MagicLens if it is called so, else Visualized BGE.

    Args:
        name: see ``ModelChoice.embedding``.
        device: torch device.
        dtype: floating point type.
    """
    is_magiclens = re.search("magic_?lens", name.lower()) is not None
    embedding = MagicLensEmbedding if is_magiclens else VisualizedBGEEmbedding
    return embedding(model_name=name, device=device, dtype=dtype, on_error="skip")
