"""What results say about the model: a name that is ours, and a revision that changes with the numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mteb.models.model_meta import ModelMeta

OWNER = "llama-index-multimodal-rerank"


def own_name(model_name: str, suffix: str = "") -> str:
    """Return the name of a model, run by this package; never one that is in mteb's registry."""
    return f"{OWNER}/{PurePath(model_name).name or 'model'}{suffix}"


def revision_of(settings: Mapping[str, Any]) -> str:
    """Return a digest of all that results depend on."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def model_meta(
    name: str, revision: str, *, embed_dim: int | None, num_parameters: int | None, model_type: str
) -> ModelMeta:
    """Return what is known, and None for what is not: licence, languages, training data, dates.

    Args:
        name: ``"owner/model"``.
        revision: see :func:`revision_of`.
        embed_dim: length of the vectors, if there are any.
        num_parameters: parameters, where they were counted.
        model_type: mteb's word for it.
    """
    return ModelMeta(
        loader=None,
        name=name,
        revision=revision,
        release_date=None,
        languages=None,
        n_parameters=num_parameters,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=embed_dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=None,
        modalities=["image", "text"],
        model_type=[model_type],
    )
