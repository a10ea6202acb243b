"""MTEBEncoder: our embedding models as encoders of mteb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from tqdm.auto import tqdm

from ...embeddings.image_text_embedding import ImageTextEmbedding
from .inputs import batch_strings, check_modalities
from .metadata import model_meta, own_name, revision_of

if TYPE_CHECKING:
    import numpy.typing as npt
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput, PromptType
    from torch.utils.data import DataLoader


class MTEBEncoder(AbsEncoder):
    """An embedding model of this package, for ``mteb.evaluate`` on tasks with pictures, texts, or both.

    A query of picture and text is embedded as one, and so is a document. Prompts that tasks have for models
    with instructions are not used: these models have none.

    Results carry the name ``llama-index-multimodal-rerank/<model>``, so that they are never taken for those
    of another implementation, and as the revision a digest of the model's fingerprint: weights and
    preprocessing.

    Example:
        >>> import mteb  # doctest: +SKIP
        >>> encoder = MTEBEncoder(VisualizedBGEEmbedding())  # doctest: +SKIP
        >>> mteb.evaluate(encoder, mteb.get_tasks(["CIRRIT2IRetrieval"]))  # doctest: +SKIP

    Args:
        embed_model: ``VisualizedBGEEmbedding``, ``MagicLensEmbedding``. Loads the model.

    Raises:
        OSError: the checkpoint is not there and cannot be fetched.
    """

    def __init__(self, embed_model: ImageTextEmbedding) -> None:
        self.model = embed_model
        # A service has no model here to count the parameters of.
        torch_model = getattr(getattr(embed_model, "model", None), "model", None)
        parameters = getattr(torch_model, "parameters", None)
        self.mteb_model_meta = model_meta(
            own_name(embed_model.model_name),
            revision_of(embed_model.fingerprint),
            embed_dim=embed_model.dim,
            num_parameters=None if parameters is None else sum(each.numel() for each in parameters()),
            model_type="dense",
        )

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> npt.NDArray[np.float32]:
        """Embed the entries of a task.

        Args:
            inputs: batches of pictures, texts, or both. Their size is ``encode_kwargs["batch_size"]`` of
                ``mteb.evaluate``; what the model computes at once is its own ``embed_batch_size``, so make
                the first several times the second.
            task_metadata: the task.
            hf_split: its split.
            hf_subset: its subset.
            prompt_type: queries or documents; both are embedded alike.
            kwargs: ``show_progress_bar``, ``batch_size``, ``precision`` (``"float32"`` only).

        Returns:
            float32 array, shape (entries, dim).

        Raises:
            ValueError: the task has sound or films, an entry is empty, or ``precision`` is another.
        """
        check_modalities(task_metadata, prompt_type)
        precision = kwargs.get("precision") or "float32"
        if precision != "float32":
            raise ValueError(
                f"vectors are float32, got precision={precision!r}; mteb's CompressionWrapper rounds"
            )
        shown = tqdm(inputs, desc="Embedding", disable=not kwargs.get("show_progress_bar", True))
        parts = [self.model.encode(batch_strings(batch)) for batch in shown]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.dim), np.float32)
