"""Another set for Visualized BGE: two small models, one on BERT and one on XLM-RoBERTa."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llama_index_multimodal_rerank.models.fast_tokenizer import truncate
from llama_index_multimodal_rerank.models.visualized_bge.configuration import VisualizedBGEConfig
from llama_index_multimodal_rerank.models.visualized_bge.modeling import VisualizedBGEModel, meta_model
from llama_index_multimodal_rerank.models.visualized_bge.processing import (
    TextTokenizer,
    crop_image,
    normalize_crops,
)
from llama_index_multimodal_rerank.models.visualized_bge.state_dict import fill_model, upstream_key

from ..golden import PUBLIC, load_seeded_weights, read_json
from ..visualized_bge_golden import read_config
from .inputs import TEXTS, random_text, write_images, write_json, write_tokenizer

IMAGES = {
    "garden.png": ("RGB", 310, 190),
    "boat.png": ("RGBA", 150, 260),
    "stamp.png": ("P, transparent", 230, 227),
    "stone.png": ("L", 291, 224),
    "glass.png": ("LA", 260, 200),
    "ink.png": ("1", 240, 250),
    "scan16.png": ("I;16", 225, 301),
    "print.jpg": ("CMYK", 270, 260),
    "turned.jpg": ("EXIF 6", 200, 340),
    "dot.png": ("RGB", 9, 4),
    "pole.png": ("RGB", 120, 900),
    "same.png": ("RGB", 224, 224),
}
# By name: the public model that it stands beside, and sizes. Of 224 pixels, patches of 32 leave a grid of
# 7 x 7; the width of a head must be a multiple of 4.
MODELS: dict[str, dict[str, Any]] = {
    "little_bert": {
        "beside": "tiny_bert",
        "text": {
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "intermediate_size": 80,
        },
        "max_position_embeddings": 200,
        "vision": {"width": 40, "layers": 3, "heads": 2, "patch_size": 32, "embed_dim": 24},
        "pieces": 300,
    },
    "little_xlmr": {
        "beside": "tiny_xlmr",
        "text": {
            "hidden_size": 56,
            "num_hidden_layers": 2,
            "num_attention_heads": 7,
            "intermediate_size": 96,
        },
        "max_position_embeddings": 620,
        "vision": {"width": 48, "layers": 2, "heads": 3, "patch_size": 28, "embed_dim": 20},
        "pieces": 240,
    },
}
PUBLIC_SET = PUBLIC / "visualized_bge"


def make_visualized_bge(folder: Path, seed: int) -> None:
    """Write the set."""
    folder.mkdir(parents=True)
    shutil.copyfile(PUBLIC_SET / "seeded_weights.py", folder / "seeded_weights.py")
    seeded = load_seeded_weights(folder)
    write_images(folder / "images", IMAGES, seed)
    tables: dict[str, np.ndarray] = {}
    models = {}
    for number, (name, sizes) in enumerate(MODELS.items()):
        section = {
            "golden": f"golden_{name}.npz",
            "manifest": f"manifest_{name}.json",
            "config": f"config_{name}.json",
            "tokenizer": f"tokenizer_{name}",
            "weights_seed": 100 * seed + number,
        }
        written = _write_config(folder, section, sizes)
        config = read_config(name, written)
        manifest = _manifest(name, config, tables)
        write_json(folder / section["manifest"], manifest)
        np.savez_compressed(folder / "rope_tables.npz", **tables)
        state = {
            key: torch.from_numpy(np.array(array)).reshape(array.shape)
            for key, array in seeded.seeded_state_dict(manifest, section["weights_seed"], folder=folder)
        }
        tokenizer = TextTokenizer.from_folder(folder / section["tokenizer"], config)
        recorder = _Recorder(folder, config, tokenizer, state)
        cases = _cases(config, tokenizer)
        trace = {
            "image_text": {"images": ["garden.png"], "texts": [TEXTS["edit"]]},
            "text": {"texts": [TEXTS["plain"]]},
            "token_rows": "all",
        }
        for case in cases:
            recorder.record(case)
        recorder.record_steps(trace)
        np.savez_compressed(folder / section["golden"], **recorder.arrays)
        models[name] = {
            **section,
            "limits": {
                "text_tokens_max": config.text.max_tokens,
                "text_tokens_with_image_max": config.max_tokens_with_image,
                "image_tokens": config.vision.num_patches,
            },
            "cases": cases,
            "trace": trace,
        }
    write_json(
        folder / "cases.json",
        {
            "format": 1,
            "about": "Made with this repository's own code: see tests/support/golden_maker.",
            "kinds": read_json(PUBLIC_SET / "cases.json")["kinds"],
            "preprocessing": _preprocessing(folder),
            "models": models,
        },
    )


def _write_config(folder: Path, section: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = read_json(PUBLIC_SET / f"config_{sizes['beside']}.json")
    text, vision = written["text"], written["vision"]
    text |= {**sizes["text"], "max_position_embeddings": sizes["max_position_embeddings"]}
    vision |= sizes["vision"]
    vision |= {
        "head_width": vision["width"] // vision["heads"],
        "mlp_hidden": int(vision["width"] * vision["mlp_ratio"]),
        "rope_dims_per_axis": vision["width"] // vision["heads"] // 2,
    }
    written["visual_proj"] |= {"in_features": vision["width"], "out_features": text["hidden_size"]}
    written["tokenizer"] = section["tokenizer"]
    kind = "bert" if text["model_type"] == "bert" else "xlmr"
    ids = write_tokenizer(
        folder / section["tokenizer"], PUBLIC_SET / f"tokenizer_{kind}", sizes["pieces"], text
    )
    text["vocab_size"] = ids + 9  # some ids that no text has
    write_json(folder / section["tokenizer"] / "config.json", text)
    write_json(folder / section["config"], written)
    return written


def _manifest(name: str, config: VisualizedBGEConfig, tables: dict[str, np.ndarray]) -> dict[str, Any]:
    vision = config.vision
    grid, width = vision.image_size // vision.patch_size, vision.hidden_size // vision.num_attention_heads
    table = f"grid{grid}_head{width}"
    # each half of a head: width / 4 frequencies, each for two neighbouring channels; rows first, then columns
    frequencies = 10000.0 ** (-2 * np.arange(width // 4) / (width / 2))
    angles = np.repeat(np.arange(grid)[:, None] / grid * vision.rope_grid_size * frequencies, 2, axis=1)
    rows = np.broadcast_to(angles[:, None], (grid, grid, width // 2))
    both = np.concatenate([rows, rows.transpose(1, 0, 2)], axis=-1).reshape(grid * grid, width)
    tables[f"{table}/freqs_cos"] = np.cos(both).astype(np.float32)
    tables[f"{table}/freqs_sin"] = np.sin(both).astype(np.float32)
    shapes = {upstream_key(key): list(value.shape) for key, value in meta_model(config).state_dict().items()}
    tower = "model_visual.visual."
    places = ("", *(f"blocks.{i}.attn." for i in range(vision.num_hidden_layers)))
    ropes = [f"{tower}{place}rope.freqs_{which}" for place in places for which in ("cos", "sin")]
    entries = [
        {"key": key, "shape": shape, "dtype": "float32", "kind": "parameter", "fill": "seeded"}
        for key, shape in shapes.items()
    ]
    entries += [
        {
            "key": key,
            "shape": [grid * grid, width],
            "dtype": "float32",
            "kind": "buffer",
            "fill": "rope_table",
        }
        for key in ropes
    ]
    return {"model": name, "rope_table": table, "entry_count": len(entries), "entries": entries}


def _cases(config: VisualizedBGEConfig, tokenizer: TextTokenizer) -> list[dict[str, Any]]:
    limit, with_image = config.text.max_tokens, config.max_tokens_with_image

    def of_length(tokens: int, seed: int) -> str:
        text = random_text(tokens, seed).split()
        while len(tokenizer([" ".join(text)])[0]) > tokens:
            text.pop()
        while len(tokenizer([" ".join(text)])[0]) < tokens:
            text.append("-")  # one token each, in both tokenizers two at most
        return " ".join(text)

    half = {"float16_checkpoint": True}
    cases: list[dict[str, Any]] = [
        {"id": f"t_{key}", "kind": "text", "texts": [text]} for key, text in TEXTS.items()
    ]
    cases[0] |= half
    cases += [
        {"id": "t_nothing", "kind": "text", "texts": [""]},
        {"id": "t_several", "kind": "text_batch", "texts": [TEXTS["edit"], "", TEXTS["list"]]},
    ]
    if config.text.model_type == "bert":
        cases += [
            {"id": "t_longest", "kind": "text", "texts": [of_length(limit, 5)]},
            {
                "id": "t_longer",
                "kind": "text",
                "texts": [random_text(limit + 40, 6)],
                "reference": "error",
                "truncated_to": limit,
            },
            {
                "id": "it_longest",
                "kind": "image_text",
                "images": ["same.png"],
                "texts": [of_length(with_image, 7)],
            },
            {
                "id": "it_longer",
                "kind": "image_text",
                "images": ["stone.png"],
                "texts": [random_text(with_image + 30, 8)],
                "reference": "error",
                "truncated_to": with_image,
            },
        ]
    cases += [{"id": f"i_{Path(name).stem}", "kind": "image", "images": [name]} for name in IMAGES]
    next(case for case in cases if case["id"] == "i_garden").update(half)
    cases += [
        {"id": "i_several", "kind": "image_batch", "images": ["pole.png", "dot.png"]},
        {"id": "it_edit", "kind": "image_text", "images": ["garden.png"], "texts": [TEXTS["edit"]], **half},
        {"id": "it_mixed", "kind": "image_text", "images": ["print.jpg"], "texts": [TEXTS["mixed"]], **half},
        {"id": "it_nothing", "kind": "image_text", "images": ["boat.png"], "texts": [""]},
        {
            "id": "it_several",
            "kind": "image_text_batch",
            "images": ["dot.png", "stamp.png"],
            "texts": [TEXTS["list"], TEXTS["ja"]],
        },
        {"id": "ids", "kind": "raw_ids"},
        {"id": "ids_images", "kind": "raw_ids_image", "images": ["boat.png", "garden.png"]},
        {
            "id": "probe",
            "kind": "image",
            "images": ["garden.png"],
            "weight_scale": {
                "prefix": "model_visual.",
                "suffixes": [
                    "patch_embed.proj.weight",
                    "visual.cls_token",
                    "visual.pos_embed",
                    "attn.v_bias",
                ],
                "factor": 0.0078125,
            },
        },
    ]
    return [{"reference": "ok", **case} for case in cases]


def _pixels(folder: Path, names: Sequence[str]) -> torch.Tensor:
    crops = [crop_image(Image.open(folder / "images" / name)) for name in names]
    return normalize_crops(torch.from_numpy(np.stack(crops)))


def _preprocessing(folder: Path) -> dict[str, Any]:
    arrays, facts = {}, {}
    for name in IMAGES:
        crop, pixels = crop_image(Image.open(folder / "images" / name)), _pixels(folder, [name])[0].numpy()
        arrays[f"crop_uint8/{name}"] = crop
        thousandths = np.round(1000 * pixels).astype("<i2")
        facts[name] = {
            "crop_sha256": hashlib.sha256(crop.tobytes()).hexdigest(),
            "pixels_rounded_sha256": hashlib.sha256(thousandths.tobytes()).hexdigest(),
        }
    arrays["pixels/boat.png"] = _pixels(folder, ["boat.png"])[0].numpy()
    np.savez_compressed(folder / "golden_preprocessing.npz", **arrays)
    return {"golden": "golden_preprocessing.npz", "images": facts}


class _Recorder:
    """Runs the model, and keeps what the set's npz file holds."""

    def __init__(
        self,
        folder: Path,
        config: VisualizedBGEConfig,
        tokenizer: TextTokenizer,
        state: dict[str, torch.Tensor],
    ) -> None:
        self.folder, self.config, self.tokenizer, self.state = folder, config, tokenizer, state
        self.arrays: dict[str, np.ndarray] = {}
        self.model = self._build(state)

    def _build(self, state: dict[str, torch.Tensor]) -> VisualizedBGEModel:
        model = meta_model(self.config)
        fill_model(model, state, device=torch.device("cpu"), dtype=torch.float32)
        return model

    def record(self, case: dict[str, Any]) -> None:
        """Record a case; with a checkpoint in float16, too, if it asks for that."""
        images, name = case.get("images", []), case["id"]
        if case["kind"].startswith("raw_ids"):
            rng = np.random.default_rng(11)
            mask = torch.ones(2, 9, dtype=torch.long)
            mask[1, 6:] = 0
            ids = torch.from_numpy(rng.integers(5, self.config.text.vocab_size, (2, 9)))
            ids[mask == 0] = self.config.text.pad_token_id
        else:
            limit = self.config.max_tokens_with_image if images else self.config.text.max_tokens
            texts = case.get("texts", [""] * len(images))
            ids, mask = self.tokenizer.pad([truncate(row, limit) for row in self.tokenizer(texts)])
        model = self.model
        if scale := case.get("weight_scale"):
            chosen = tuple(scale["suffixes"])
            model = self._build(
                {
                    key: tensor * scale["factor"]
                    if key.startswith(scale["prefix"]) and key.endswith(chosen)
                    else tensor
                    for key, tensor in self.state.items()
                }
            )
        self.arrays[f"{name}/input_ids"] = ids.numpy().astype(np.int32)
        self.arrays[f"{name}/attention_mask"] = mask.numpy().astype(np.int8)
        self._embed(model, case, ids, mask, "")
        if case.get("float16_checkpoint"):
            rounded = self._build({key: tensor.half() for key, tensor in self.state.items()})
            self._embed(rounded, case, ids, mask, "_float16_checkpoint")

    def _embed(
        self,
        model: VisualizedBGEModel,
        case: dict[str, Any],
        ids: torch.Tensor,
        mask: torch.Tensor,
        suffix: str,
    ) -> None:
        images = case.get("images", [])
        with torch.inference_mode():
            raw = model(ids, mask, _pixels(self.folder, images) if images else None).numpy()
        self.arrays[f"{case['id']}/embedding_raw{suffix}"] = raw
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        self.arrays[f"{case['id']}/embedding{suffix}"] = unit

    def record_steps(self, trace: dict[str, Any]) -> None:
        """Record the steps in between, of one picture with a text and of one text."""
        tower, text = self.model.vision.eva, self.model.text
        places = {
            "patch_embed": tower.patch_embed,
            "vision_block0": tower.blocks[0],
            "vision_tokens": tower.blocks[-1],
            "projected": self.model.visual_proj,
            "text_embeddings": text.embeddings,
            "encoder_layer0": text.encoder.layer[0],
        }
        seen: dict[str, torch.Tensor] = {}

        def keep(step: str) -> Any:
            return lambda _module, _inputs, output: seen.update(
                {step: output[0] if isinstance(output, tuple) else output}
            )

        def keep_encoder(_module: Any, inputs: Any, output: Any) -> None:
            seen.update(encoder_input=inputs[0], encoder_output=output.last_hidden_state)

        hooks = [module.register_forward_hook(keep(step)) for step, module in places.items()]
        hooks.append(text.encoder.register_forward_hook(keep_encoder))
        for kind in ("image_text", "text"):
            images = trace[kind].get("images", [])
            ids, mask = self.tokenizer.pad(self.tokenizer(trace[kind]["texts"]))
            seen.clear()
            with torch.inference_mode():
                self.model.last_hidden_state(ids, mask, _pixels(self.folder, images) if images else None)
            for step, tensor in seen.items():
                self.arrays[f"trace_{kind}/{step}"] = tensor.numpy()
        for hook in hooks:
            hook.remove()
