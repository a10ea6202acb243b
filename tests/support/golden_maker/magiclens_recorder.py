"""Runs a small MagicLens, and keeps what a golden set has of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llama_index_multimodal_rerank.models.fast_tokenizer import truncate
from llama_index_multimodal_rerank.models.magiclens import MagicLensConfig, MagicLensModel
from llama_index_multimodal_rerank.models.magiclens.modeling import meta_model
from llama_index_multimodal_rerank.models.magiclens.processing import (
    TOKENIZER_FOLDER,
    MagicLensTokenizer,
    normalize_squares,
    squash_image,
)
from llama_index_multimodal_rerank.models.magiclens.state_dict import Weights, fill_model
from llama_index_multimodal_rerank.models.magiclens.upstream_keys import parameters


class Recorder:
    """Runs the model, and keeps what the set's npz file holds."""

    def __init__(self, folder: Path, config: MagicLensConfig, arrays: Mapping[str, np.ndarray]) -> None:
        self.folder, self.config, self.weights = folder, config, arrays
        self.arrays: dict[str, np.ndarray] = {}
        self.model = self._build({})

    def _build(self, scale: Mapping[str, float]) -> MagicLensModel:
        by_name = {parameter.name: parameter for parameter in parameters(self.config)}

        def read(name: str) -> torch.Tensor:
            parameter = by_name[name]
            array = np.asarray(self.weights[parameter.key] * np.float32(scale.get(parameter.key, 1)))
            return parameter.to_torch(torch.from_numpy(array).reshape(parameter.shape)).contiguous()

        model = meta_model(self.config)
        weights = Weights(self.config, tuple(by_name), read)
        fill_model(model, weights, device=torch.device("cpu"), dtype=torch.float32)
        return model

    def _pixels(self, names: Sequence[str]) -> torch.Tensor:
        squares = [squash_image(Image.open(self.folder / "images" / name)) for name in names]
        return normalize_squares(torch.from_numpy(np.stack(squares)))

    def _ids(self, texts: Sequence[str]) -> torch.Tensor:
        text = self.config.text
        tokenizer = MagicLensTokenizer.from_folder(TOKENIZER_FOLDER, text)
        ids = tokenizer.pad([truncate(row, text.max_position_embeddings) for row in tokenizer(texts)])
        return torch.nn.functional.pad(ids, (0, text.max_position_embeddings - ids.shape[1]))

    def record(self, case: Mapping[str, Any]) -> None:
        """Record a case."""
        text = self.config.text
        if case["kind"].startswith("raw_ids"):
            rng = np.random.default_rng(11)
            ids = torch.zeros((2, text.max_position_embeddings), dtype=torch.int64)
            ids[:, :9] = torch.from_numpy(rng.integers(0, text.bos_token_id, (2, 9)))
            ids[:, 0], ids[0, 8], ids[1, 6] = text.bos_token_id, text.eos_token_id, text.eos_token_id
        else:
            ids = self._ids(case.get("texts", [""] * len(case["images"])))
        model = self._build(case["weight_scale"]) if "weight_scale" in case else self.model
        with torch.inference_mode():
            image, embedded = model.embed_image(self._pixels(case["images"])), model.embed_text(ids)
            raw = model.fuse(image, embedded)
        for step, tensor in {
            "input_ids": ids.int(),
            "clip_image_embed": image,
            "clip_text_embed": embedded,
            "embedding_raw": raw,
            "embedding": torch.nn.functional.normalize(raw, dim=-1),
        }.items():
            self.arrays[f"{case['id']}/{step}"] = tensor.numpy()

    def record_steps(self, trace: Mapping[str, Any]) -> None:
        """Record the steps in between, of one picture with a text."""
        vision, text, fusion = self.model.clip.vision_model, self.model.clip.text_model, self.model.fusion
        vision_rows, text_rows = trace["vision_rows"], trace["text_rows"]
        patches = [row - 1 for row in vision_rows if row]
        steps: dict[str, tuple[torch.nn.Module, Any]] = {
            "patch_embed": (vision.embeddings.patch_embedding, lambda x: x[0].flatten(1).t()[patches]),
            "vision_ln_pre": (vision.pre_layrnorm, lambda x: x[0, vision_rows]),
            "vision_block_0": (vision.encoder.layers[0], lambda x: x[0, vision_rows]),
            "vision_block_last": (vision.encoder.layers[-1], lambda x: x[0, vision_rows]),
            "vision_ln_post": (vision.post_layernorm, lambda x: x[0]),
            "text_token_embedding": (text.embeddings.token_embedding, lambda x: x[0, text_rows]),
            "text_block_0": (text.encoder.layers[0], lambda x: x[0, text_rows]),
            "text_block_last": (text.encoder.layers[-1], lambda x: x[0, text_rows]),
            "text_ln_final": (text.final_layer_norm, lambda x: x[0, text_rows]),
            "pool_attention": (fusion.pooler.post, lambda x: x.flatten()),
        }
        for i, layer in enumerate(fusion.layers):
            steps[f"fusion_{i}_norm"] = layer.norm, lambda x: x[0]
            steps[f"fusion_{i}_attention"] = layer.attention, lambda x: x[0]
            steps[f"fusion_{i}_output"] = layer, lambda x: x[0]

        def keep(step: str, choose: Any) -> Any:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                value = output[0] if isinstance(output, tuple) else output
                self.arrays[f"trace/{step}"] = choose(value).numpy()

            return hook

        hooks = [module.register_forward_hook(keep(step, choose)) for step, (module, choose) in steps.items()]
        with torch.inference_mode():
            ids = self._ids([trace["text"]])
            self.model(ids, self._pixels([trace["image"]]), torch.tensor([0]))
        for hook in hooks:
            hook.remove()
