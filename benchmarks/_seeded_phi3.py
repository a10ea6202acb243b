"""Phi-3 Vision with seeded weights that are made where they are used: nothing is written, read or copied."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionConfig,
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.vlm.phi3_loading import LoadedPhi3Vision
from tests.support.phi3_vision_golden import read_json, seeded_weights

from ._checkpoints import stop_tokens, write_processor


def seeded_phi3_vision(
    folder: Path, *, device: torch.device, dtype: torch.dtype, layers: int | None = None, tiny: bool = False
) -> LoadedPhi3Vision:
    """Build the model on its device.

    The weights are as large as those of ``phi3_vision_folder``, and never end an answer either.

    Args:
        folder: where the processor's files are written.
        device: where the weights are made, in ``dtype``.
        dtype: of the weights.
        layers: decoder layers. Default: all.
        tiny: the tests' tiny architecture instead.
    """
    config = dict(read_json(f"config_{'tiny' if tiny else '128k'}.json"))
    if layers is not None:
        config["num_hidden_layers"] = min(layers, config["num_hidden_layers"])
    tokenizer = write_processor(folder, tiny=tiny)
    with torch.device(device):
        model: Phi3VisionForConditionalGeneration = Phi3VisionForConditionalGeneration._from_config(
            Phi3VisionConfig(**config), dtype=dtype
        )
    with torch.no_grad():
        for key, weight in model.named_parameters():
            scale, shift = seeded_weights.scale_and_shift(key, weight.shape)
            seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "little")
            weight.normal_(shift, scale, generator=torch.Generator(device).manual_seed(seed))
        # The greatest of thousands of random logits is never the one that is 0.
        model.lm_head.weight[stop_tokens(tokenizer)] = 0
    return LoadedPhi3Vision(model.eval(), Phi3VisionProcessor.from_pretrained(folder))
