"""The sizes of a golden set's model, as our configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index_multimodal_rerank.models.magiclens import (
    FusionConfig,
    MagicLensConfig,
    TextConfig,
    VisionConfig,
)


def read_config(model: str, data: Mapping[str, Any]) -> MagicLensConfig:
    """Return the content of a set's ``config_*.json`` as our configuration."""
    text, vision, fusion = data["clip"]["text"], data["clip"]["vision"], data["fusion"]
    return MagicLensConfig(
        name=model,
        text=TextConfig(
            hidden_size=text["width"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            intermediate_size=text["mlp_width"],
            vocab_size=text["vocabulary"],
            bos_token_id=data["start_token"],
            eos_token_id=data["end_token"],
            max_position_embeddings=data["context_length"],
        ),
        vision=VisionConfig(
            hidden_size=vision["width"],
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["heads"],
            intermediate_size=vision["mlp_width"],
            patch_size=vision["patch_size"],
            image_size=data["image_size"],
        ),
        fusion=FusionConfig(
            hidden_size=fusion["width"],
            num_hidden_layers=fusion["layers"],
            num_attention_heads=fusion["heads"],
            intermediate_size=fusion["feed_forward"],
            pooler_size=fusion["pooler_width"],
        ),
    )
