"""Whatever a user calls a model, to the model: a name, a LlamaIndex LLM, or an object with the methods."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms import LLM
from llama_index.core.multi_modal_llms import MultiModalLLM

from .phi3_loading import DEFAULT_MODEL_NAME
from .phi3_vision import DEFAULT_NUM_CROPS, LocalPhi3Vision
from .protocols import VisionLanguageModel

__all__ = ["DEFAULT_MODEL_NAME", "DEFAULT_NUM_CROPS", "resolve_model"]


def resolve_model(
    model: Any, *, device: str | None = None, dtype: str | None = None, num_crops: int | None = None
) -> VisionLanguageModel:
    """Return the model; weights are loaded when it is first asked.

    Args:
        model: name on the hub or local folder of Phi-3 Vision, or ``"demo"``; a multimodal LLM of LlamaIndex;
            or a :class:`VisionLanguageModel`, which is returned as it is.
        device: torch device of a model given by name.
        dtype: floating point type of a model given by name.
        num_crops: tiles of a sheet, for a model given by name.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(model, str):
        return LocalPhi3Vision(model, device=device, dtype=dtype, num_crops=num_crops)
    if isinstance(model, (LLM, MultiModalLLM)):
        from .llama_index import LlamaIndexVLM

        return LlamaIndexVLM(model)
    if isinstance(model, VisionLanguageModel):
        return model
    raise ValueError(
        "model must be the name or folder of a Phi-3 Vision checkpoint, a VisionLanguageModel (with "
        f"model_name and generate), or a multimodal LLM of LlamaIndex, got {model!r}"
    )
