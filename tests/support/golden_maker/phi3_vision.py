"""Another set for Phi-3 Vision: other sizes, another tokenizer, other pictures and prompts."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from llama_index_multimodal_rerank.models.hd_geometry import hd_size, num_image_tokens
from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionConfig,
    Phi3VisionForConditionalGeneration,
    Phi3VisionImageProcessor,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.models.phi3_vision.rotary_phi3_vision import Phi3VisionRotaryEmbedding

from ..golden import PUBLIC, load_seeded_weights, read_json
from .inputs import TEXTS, write_images, write_json, write_tokenizer

PUBLIC_SET = PUBLIC / "phi3_vision"
# What is said about the published full-size model is no choice of a set.
PUBLISHED = ("config_128k.json", "manifest_128k.json", "native_key_map.json", "seeded_weights.py")
IMAGES = {
    "field_640x400.png": ("RGB", 640, 400),
    "mast_180x700.png": ("RGB", 180, 700),
    "veil_244x190.png": ("RGBA", 244, 190),
    "slate_333x90.png": ("L", 333, 90),
    "poster_150x150.png": ("P", 150, 150),
    "speck_6x11.png": ("RGB", 6, 11),
}
CROPS = (6, 2)
SIZES = {"hidden_size": 80, "num_hidden_layers": 3, "num_attention_heads": 5, "num_key_value_heads": 5}
SIZES |= {
    "intermediate_size": 112,
    "original_max_position_embeddings": 1024,
    "max_position_embeddings": 16384,
}
TOWER = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 80}
GENERATED = 20
TURN = "<|user|>\n{}<|end|>\n<|assistant|>\n"
PROMPTS: list[tuple[str, int, list[str], str]] = [
    ("chat", 2, [], TURN.format("Does the boat fit the question?")),
    ("no_chat", 2, [], TEXTS["list"]),
    ("field_nc1", 1, ["field_640x400"], TURN.format("<|image_1|>\nName the two largest things.")),
    ("mast_nc2", 2, ["mast_180x700"], TURN.format("<|image_1|>\nHow tall?")),
    ("veil_nc6", 6, ["veil_244x190"], "<|image_1|>"),
    ("slate_inside_nc2", 2, ["slate_333x90"], TURN.format("A: <|image_1|> and B: a lamp. Which one?")),
    ("two_nc2", 2, ["poster_150x150", "speck_6x11"], TURN.format("<|image_1|>\n<|image_2|>\nCompare.")),
]
# by what original_max_position_embeddings is above the prompt's length
LONG = {"long_text": ("chat", -9), "long_image": ("field_nc1", -50), "crossing": ("field_nc1", 7)}


def make_phi3_vision(folder: Path, seed: int) -> None:
    """Write the set."""
    folder.mkdir(parents=True)
    for name in PUBLISHED:
        shutil.copyfile(PUBLIC_SET / name, folder / name)
    tokenizer_cases = read_json(PUBLIC_SET / "tokenizer_128k_cases.json")
    write_json(
        folder / "tokenizer_128k_cases.json", {**tokenizer_cases, "prompts": []}
    )  # of pictures not here
    write_images(folder / "images", IMAGES, seed)
    config = _write_config(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    processor = Phi3VisionProcessor(Phi3VisionImageProcessor(), tokenizer)
    _write_manifest(folder, config)
    _write_processor_cases(folder, processor)
    _write_rope(folder)
    while True:  # greedy tokens that are nearly as likely as others cannot be compared
        cases, arrays = _Recorder(folder, config, processor, seed).record()
        if min(case["min_margin"] for case in cases["cases"]) > 1e-3:
            break
        seed += 1000
    write_json(folder / "cases.json", cases)
    np.savez_compressed(folder / "golden_tiny.npz", **arrays)


def _write_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_json(PUBLIC_SET / "config_tiny.json")
    half_a_head = SIZES["hidden_size"] // SIZES["num_attention_heads"] // 2
    factors = np.linspace(1, 3, half_a_head), np.geomspace(1.02, 50, half_a_head)
    template = PUBLIC_SET / "tokenizer"
    ids = write_tokenizer(folder / "tokenizer", template, 410, read_json(template / "config.json"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    config |= SIZES | {"vocab_size": ids + 13, "pad_token_id": tokenizer.pad_token_id}
    config["rope_scaling"] = {
        "type": "su",
        **{
            name: np.round(values, 2).tolist()
            for name, values in zip(("short_factor", "long_factor"), factors, strict=True)
        },
    }
    config["vision_config"] |= TOWER
    config["img_processor"]["image_dim_out"] = TOWER["hidden_size"]
    config["sliding_window"] = SIZES["max_position_embeddings"]
    write_json(folder / "config_tiny.json", config)
    return config


def _build(config: dict[str, Any], **changes: Any) -> Phi3VisionForConditionalGeneration:
    model = Phi3VisionForConditionalGeneration(Phi3VisionConfig(**{**config, **changes}))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = config["pad_token_id"]
    return model.eval()


def _write_manifest(folder: Path, config: dict[str, Any]) -> None:
    """Keys of another number of layers: those of the public set, with the numbers exchanged."""
    public = read_json(PUBLIC_SET / "manifest_tiny.json")["tensors"]
    shapes = {name: list(value.shape) for name, value in _build(config).named_parameters()}
    names = [name for name, entry in public.items() if entry["in_checkpoint"]]
    text, vision = "model.layers.0.", "encoder.layers.0."
    names += [name.replace(text, f"model.layers.{i}.") for name in names if text in name for i in range(1, 9)]
    names += [
        name.replace(vision, f"encoder.layers.{i}.") for name in names if vision in name for i in range(1, 9)
    ]
    tensors = {}
    for name in sorted(set(names)):
        shape = shapes.get(name, shapes.get(name.replace("img_processor.vision_model.", "img_processor.")))
        if shape is not None:
            tensors[name] = {"shape": shape, "dtype": "float32", "kind": "parameter", "in_checkpoint": True}
    assert len(tensors) == len(shapes)
    write_json(folder / "manifest_tiny.json", {"tensors": tensors})


def _picture(folder: Path, name: str) -> Image.Image:
    return Image.open(folder / "images" / f"{name}.png")


def _runs(ids: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for token in ids:
        if runs and runs[-1][0] == token:
            runs[-1][1] += 1
        else:
            runs.append([token, 1])
    return runs


def _prompt(
    folder: Path, processor: Phi3VisionProcessor, name: str, num_crops: int, images: list[str], text: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    inputs = dict(processor(text, [_picture(folder, each) for each in images] or None, num_crops=num_crops))
    ids = inputs["input_ids"][0].tolist()
    case = {"name": name, "num_crops": num_crops, "images": images, "text": text}
    case |= {"input_ids_rle": _runs(ids), "length": len(ids)}
    return case, inputs


def _write_processor_cases(folder: Path, processor: Phi3VisionProcessor) -> None:
    arrays, images = {}, {}
    for file in IMAGES:
        name = Path(file).stem
        picture = _picture(folder, name)
        entry: dict[str, Any] = {"mode": picture.mode, "size_wh": list(picture.size), "by_num_crops": {}}
        for num_crops in CROPS:
            out = processor.image_processor(picture, num_crops=num_crops)
            pixels = out["pixel_values"]
            crops = pixels[0]
            height, width = out["image_sizes"][0].tolist()
            used = height // 336 * (width // 336)
            last = crops[used]
            found = {
                "crop_mean": crops.double().mean(dim=(2, 3)),
                "crop_std": crops.double().std(dim=(2, 3), unbiased=False),
                "grid": crops[:, :, 8::40, 8::40],
                "global_corner": crops[0, :, :6, :6],
                "first_crop_centre": crops[1, :, 165:171, 165:171],
                "global_row168_red": crops[0, 0, 168],
                "last_crop_edges": torch.stack([last[:, 0], last[:, -1], last[:, :, 0], last[:, :, -1]]),
            }
            arrays |= {f"{name}/nc{num_crops}/{key}": value.numpy() for key, value in found.items()}
            entry["by_num_crops"][str(num_crops)] = {
                "image_sizes_hw": [height, width],
                "num_img_tokens": num_image_tokens(height, width),
                "crops_used": used,
                "pixel_values_shape": list(pixels.shape),
                "pixel_values_sha256": hashlib.sha256(np.ascontiguousarray(pixels.numpy())).hexdigest(),
            }
        images[name] = entry
    np.savez_compressed(folder / "golden_processor.npz", **arrays)
    texts = ["", "lamp", " lamp", TURN.format("Boat?"), "<|end|>x", *TEXTS.values()]
    columns = read_json(PUBLIC_SET / "processor_cases.json")["hd_sizes_columns"]
    rng = np.random.default_rng(3)
    sizes = [(*rng.integers(1, 3000, 2).tolist(), int(rng.integers(1, 20))) for _ in range(60)]
    two = ["poster_150x150", "speck_6x11"]
    talk = [{"role": "user", "content": "<|image_1|>\nA boat?"}, {"role": "assistant", "content": "No."}]
    write_json(
        folder / "processor_cases.json",
        {
            "format": 1,
            "images": images,
            "hd_sizes_columns": columns,
            "hd_sizes": [_hd_row(*size) for size in sizes],
            "prompts": [_prompt(folder, processor, *prompt)[0] for prompt in PROMPTS],
            "tokenize": [
                {"text": text, "input_ids": processor(text)["input_ids"][0].tolist()} for text in texts
            ],
            "decode": [_decoded(processor, text) for text in texts],
            "chat": [
                {
                    "messages": talk[:turns],
                    "add_generation_prompt": prompting,
                    "text": processor.apply_chat_template(
                        talk[:turns], add_generation_prompt=prompting, tokenize=False
                    ),
                }
                for turns in (1, 2)
                for prompting in (True, False)
            ],
            "errors": [
                {"num_crops": 2, "images": two, "text": "<|image_1|> alone", "raises": "AssertionError"},
                {"num_crops": 2, "images": two[:1], "text": "<|image_3|>", "raises": "AssertionError"},
                {"num_crops": 2, "images": two[:1], "text": "<|image_01|> once", "raises": None},
            ],
        },
    )


def _hd_row(width: int, height: int, num_crops: int) -> list[int]:
    try:
        size = hd_size(width, height, num_crops)
    except ValueError:
        return [width, height, num_crops, 0, 0, 0, 0, 0]
    return [width, height, num_crops, *size, num_image_tokens(size.padded_height, size.padded_width)]


def _decoded(processor: Phi3VisionProcessor, text: str) -> dict[str, Any]:
    ids = processor(text)["input_ids"][0].tolist()
    return {
        "input_ids": ids,
        "text": processor.decode(ids),
        "text_skip_special": processor.decode(ids, skip_special_tokens=True),
    }


def _write_rope(folder: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for size in ("tiny", "128k"):
        config = Phi3VisionConfig(**read_json(folder / f"config_{size}.json"))
        rotary = Phi3VisionRotaryEmbedding(config)
        original, longest = config.original_max_position_embeddings, config.max_position_embeddings
        for factors, positions, inv_freq in (
            ("short", [0, 1, 17, original - 1], rotary.original_inv_freq),
            ("long", [0, 5, original, longest - 1], rotary.long_inv_freq),
        ):
            cos, sin = rotary(torch.zeros(1), torch.tensor([positions]))
            found = {"positions": torch.tensor(positions), "inv_freq": inv_freq, "cos": cos[0], "sin": sin[0]}
            arrays |= {f"{size}/{factors}/{name}": value.numpy() for name, value in found.items()}
    np.savez_compressed(folder / "golden_rope.npz", **arrays)


class _Recorder:
    """Runs the model, and keeps what ``cases.json`` and ``golden_tiny.npz`` hold."""

    def __init__(
        self, folder: Path, config: dict[str, Any], processor: Phi3VisionProcessor, seed: int
    ) -> None:
        self.folder, self.config, self.processor, self.seed = folder, config, processor, seed
        self.seeded = load_seeded_weights(folder)
        weights = self.seeded.from_manifest(read_json(folder / "manifest_tiny.json"), seed)
        self.state = {name: torch.from_numpy(values) for name, values in weights}
        self.arrays: dict[str, np.ndarray] = {}

    def _model(self, **changes: Any) -> Phi3VisionForConditionalGeneration:
        model = _build(self.config, **changes)
        names = dict(model.named_parameters())
        level = "img_processor.vision_model."
        state = {
            name if name in names else name.replace(level, "img_processor."): values
            for name, values in self.state.items()
        }
        model.load_state_dict(state, strict=False)
        return model

    @torch.no_grad()
    def record(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what goes into the two files."""
        model = self._model()
        cases = []
        inputs_of: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {}
        for prompt in PROMPTS:
            inputs_of[prompt[0]] = _prompt(self.folder, self.processor, *prompt)
            case, inputs = inputs_of[prompt[0]]
            cases.append(self._case(model, {**case, "config_overrides": {}}, inputs))
        for name, (of, above) in LONG.items():
            case, inputs = inputs_of[of]
            changes = {"original_max_position_embeddings": case["length"] + above}
            case = {**case, "name": name, "config_overrides": changes}
            cases.append(self._case(self._model(**changes), case, inputs, crossing=above > 0))
        cases.append(self._case(model, *self._seeded_pixels()))
        scaling = {
            size: Phi3VisionRotaryEmbedding(
                Phi3VisionConfig(**read_json(self.folder / f"config_{size}.json"))
            ).attention_scaling
            for size in ("tiny", "128k")
        }
        digests = {name: self.seeded.digest(values.numpy()) for name, values in self.state.items()}
        return {
            "format": 1,
            "weight_seed": self.seed,
            "weight_sha256": digests,
            "rope": {size: {"attention_scaling": value} for size, value in scaling.items()},
            "tower": self._tower(model),
            "image_features": self._features(model),
            "cases": cases,
        }, self.arrays

    def _seeded_pixels(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        pixels = {"key": "noise", "shape": [1, 4, 3, 336, 336], "seed": 77, "image_sizes_hw": [[672, 336]]}
        ids = self.processor("<|image_1|> what?", image_sizes=[(672, 336)])["input_ids"]
        case = {"name": "noise", "seeded_pixels": pixels, "config_overrides": {}}
        case |= {"input_ids_rle": _runs(ids[0].tolist()), "length": ids.shape[1]}
        values = self.seeded.generate_input(pixels["key"], pixels["shape"], pixels["seed"])
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.from_numpy(values),
            "image_sizes": torch.tensor(pixels["image_sizes_hw"]),
        }
        return case, inputs

    def _case(
        self,
        model: Phi3VisionForConditionalGeneration,
        case: dict[str, Any],
        inputs: dict[str, torch.Tensor],
        *,
        crossing: bool = False,
    ) -> dict[str, Any]:
        name, length = case["name"], case["length"]
        logits = model(**inputs).logits[0]
        features: tuple[torch.Tensor, ...] = ()
        if "pixel_values" in inputs:
            features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
        embeds = model.model.embed(inputs["input_ids"], features)
        step = max(1, length // 24)
        positions = torch.arange((length - 1) % step, length, step)
        # A prompt that comes as embeddings keeps its cached rotation, one that comes as ids is rotated anew.
        generated, scores = self._generate(model, inputs_embeds=embeds)
        best = scores.topk(2, dim=-1).values
        rows = embeds[0].double()
        found = {
            "last_logits": logits[-1],
            "positions": positions,
            "logits": logits[positions],
            "generated": generated,
            "margins": best[:, 0] - best[:, 1],
            "embeds_row_mean": rows.mean(dim=-1),
            "embeds_row_norm": rows.norm(dim=-1),
            "scores": scores,
        }
        limit = case["config_overrides"].get(
            "original_max_position_embeddings", self.config["original_max_position_embeddings"]
        )
        case |= {
            "generated": generated.tolist(),
            "min_margin": found["margins"].min().item(),
            "rope_factors": "long" if length > limit else "short",
            "checks": {"logits": True, "generation": not crossing},
        }
        if crossing:
            generated, scores = self._generate(model, **inputs)
            found |= {"generated_without_cache": generated, "scores_without_cache": scores}
            case["generated_without_cache"] = generated.tolist()
        self.arrays |= {f"{name}/{key}": value.numpy() for key, value in found.items()}
        return case

    def _generate(
        self, model: Phi3VisionForConditionalGeneration, **inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out = model.generate(
            **inputs,
            max_new_tokens=GENERATED,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return out.sequences[0, -GENERATED:], torch.cat(out.logits)

    def _tower(self, model: Phi3VisionForConditionalGeneration) -> dict[str, Any]:
        tower = {"key": "tower", "shape": [1, 3, 336, 336], "seed": 55}
        pixels = torch.from_numpy(self.seeded.generate_input(tower["key"], tower["shape"], tower["seed"]))
        embedding = model.model.vision_embed_tokens
        patches = embedding.patch_features(pixels).double()
        states = self._model().model.vision_embed_tokens.img_processor(pixels, output_hidden_states=True)
        positions = torch.tensor([0, 3, 100, 576])
        self.arrays["tower/positions"] = positions.numpy()
        for index, hidden in enumerate(states.hidden_states):
            self.arrays[f"tower/hidden_{index}"] = hidden[:, positions].numpy()
        self.arrays["tower/patch_row_mean"] = patches.mean(dim=-1).numpy()
        self.arrays["tower/patch_row_norm"] = patches.norm(dim=-1).numpy()
        return {**tower, "num_hidden_states": len(states.hidden_states)}

    def _features(self, model: Phi3VisionForConditionalGeneration) -> dict[str, Any]:
        recorded = {}
        for file in IMAGES:
            for num_crops in CROPS:
                name = f"{Path(file).stem}/nc{num_crops}"
                out = self.processor.image_processor(
                    _picture(self.folder, Path(file).stem), num_crops=num_crops
                )
                (features,) = model.get_image_features(out["pixel_values"], out["image_sizes"])
                rows = torch.arange(0, len(features), 37)
                found = {
                    "rows": rows,
                    "values": features[rows],
                    "row_mean": features.double().mean(dim=1),
                    "row_norm": features.double().norm(dim=1),
                }
                self.arrays |= {f"image_features/{name}/{key}": value.numpy() for key, value in found.items()}
                recorded[name] = {
                    "shape": list(features.shape),
                    "image_sizes_hw": out["image_sizes"][0].tolist(),
                }
        return recorded
