"""Another set for MagicLens: two small models, one without a tokenizer that is also a checkpoint file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llama_index_multimodal_rerank.models.fast_tokenizer import truncate
from llama_index_multimodal_rerank.models.magiclens import MagicLensConfig
from llama_index_multimodal_rerank.models.magiclens.processing import (
    TOKENIZER_FOLDER,
    MagicLensTokenizer,
    clean_text,
    squash_image,
)
from llama_index_multimodal_rerank.models.magiclens.upstream_keys import parameters

from ..flax_writer import pickled_bytes, pickled_tree
from ..golden import PUBLIC, load_seeded_weights, read_json
from ..magiclens_config import read_config
from .inputs import TEXTS, random_text, write_images, write_json
from .magiclens_recorder import Recorder

IMAGES = {
    "garden.png": ("RGB", 310, 190),
    "boat.png": ("RGBA", 150, 260),
    "stamp.png": ("P, transparent", 230, 227),
    "stone.png": ("L", 291, 224),
    "ink.png": ("1", 240, 250),
    "print.jpg": ("CMYK", 270, 260),
    "turned.jpg": ("EXIF 6", 200, 340),
    "dot.png": ("RGB", 9, 4),
    "pole.png": ("RGB", 120, 900),
}
# Sizes by name. The first two use CLIP's tokenizer, which the package has; the last has ids alone.
MODELS: dict[str, dict[str, Any]] = {
    "little_lens": {
        "text": {"layers": 3, "width": 40, "heads": 2, "mlp_width": 96},
        "vision": {"layers": 2, "width": 64, "heads": 4, "mlp_width": 128, "patch_size": 56},
        "fusion": {"width": 24, "layers": 3, "heads": 3, "feed_forward": 80, "pooler_width": 96},
    },
    "little_loupe": {
        "text": {"layers": 1, "width": 32, "heads": 4, "mlp_width": 64},
        "vision": {"layers": 1, "width": 48, "heads": 2, "mlp_width": 96, "patch_size": 32},
        "fusion": {"width": 32, "layers": 1, "heads": 2, "feed_forward": 64, "pooler_width": 64},
    },
    "little_file": {
        "text": {"layers": 1, "width": 16, "heads": 1, "mlp_width": 32},
        "vision": {"layers": 1, "width": 32, "heads": 1, "mlp_width": 64, "patch_size": 56},
        "fusion": {"width": 16, "layers": 1, "heads": 4, "feed_forward": 32, "pooler_width": 32},
        "vocabulary": 1500,
    },
}
ROWS = [0, 3, 100, 222]
PUBLIC_SET = PUBLIC / "magiclens"


def make_magiclens(folder: Path, seed: int) -> None:
    """Write the set."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copyfile(PUBLIC_SET / "seeded_weights.py", folder / "seeded_weights.py")
    seeded = load_seeded_weights(folder)
    write_images(folder / "images", IMAGES, seed)
    models, checkpoints = {}, []
    for number, (name, sizes) in enumerate(MODELS.items()):
        weights_seed = 100 * seed + number
        config = _write_config(folder, name, sizes)
        manifest = _manifest(name, config)
        write_json(folder / f"manifest_{name}.json", manifest)
        arrays = {
            entry["key"]: seeded.seeded_array(entry["key"], tuple(entry["shape"]), weights_seed)
            for entry in manifest["entries"]
        }
        has_tokenizer = "vocabulary" not in sizes
        cases = _cases() if has_tokenizer else []
        cases.append({"id": "ids", "kind": "raw_ids_image", "images": ["boat.png", "garden.png"]})
        recorder = Recorder(folder, config, arrays)
        for case in cases:
            recorder.record(case)
        section: dict[str, Any] = {
            "golden": f"golden_{name}.npz",
            "manifest": f"manifest_{name}.json",
            "config": f"config_{name}.json",
            "tokenizer": "tokenizer" if has_tokenizer else None,
            "weights_seed": weights_seed,
            "embedding_width": config.fusion.hidden_size,
            "cases": cases,
        }
        if has_tokenizer:
            section["trace"] = {
                "image": "garden.png",
                "text": TEXTS["edit"],
                "vision_rows": [0, 1, config.vision.num_patches],
                "text_rows": [0, 2, 5],
            }
            recorder.record_steps(section["trace"])
        else:
            checkpoints += _write_checkpoints(folder / "checkpoints", name, section, arrays)
        np.savez_compressed(folder / section["golden"], **recorder.arrays)
        models[name] = section
    write_json(folder / "checkpoints" / "index.json", {"files": checkpoints})
    write_json(folder / "tokenizer_cases.json", {"cases": _texts(folder)})
    public = read_json(PUBLIC_SET / "cases.json")
    write_json(
        folder / "cases.json",
        {
            "format": 1,
            "about": "Made with this repository's own code: see tests/support/golden_maker.",
            "tolerances": public["tolerances"],
            "preprocessing": _preprocessing(folder),
            "text": {"tokenizer": "tokenizer", "cases": "tokenizer_cases.json"},
            "models": models,
        },
    )


def _write_config(folder: Path, name: str, sizes: Mapping[str, Any]) -> MagicLensConfig:
    written: dict[str, Any] = read_json(PUBLIC_SET / "config_tiny_a.json")
    written["clip"]["text"] |= sizes["text"]
    written["clip"]["vision"] |= sizes["vision"]
    written["fusion"] |= sizes["fusion"]
    if "vocabulary" in sizes:
        size = sizes["vocabulary"]
        written["clip"]["text"]["vocabulary"] = size
        written |= {"start_token": size - 2, "end_token": size - 1}
    write_json(folder / f"config_{name}.json", written)
    return read_config(name, written)


def _manifest(name: str, config: MagicLensConfig) -> dict[str, Any]:
    entries = [
        {"key": parameter.key, "shape": list(parameter.shape), "dtype": "float32"}
        | ({"transformers": parameter.name[5:]} if parameter.name.startswith("clip.") else {})
        for parameter in parameters(config)
    ]
    count = sum(int(np.prod(entry["shape"])) for entry in entries)  # type: ignore[call-overload]
    return {"model": name, "array_count": len(entries), "parameter_count": count, "entries": entries}


def _cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = [
        {"id": f"i_{Path(name).stem}", "kind": "image", "images": [name]} for name in IMAGES
    ]
    cases += [
        {"id": f"it_{key}", "kind": "image_text", "images": ["garden.png"], "texts": [text]}
        for key, text in TEXTS.items()
    ]
    return [
        *cases,
        {"id": "i_several", "kind": "image_batch", "images": ["pole.png", "dot.png"]},
        {
            "id": "it_several",
            "kind": "image_text_batch",
            "images": ["dot.png", "stamp.png"],
            "texts": [TEXTS["list"], TEXTS["ja"]],
        },
        {
            "id": "probe",
            "kind": "image_text",
            "images": ["stone.png"],
            "texts": [TEXTS["plain"]],
            "weight_scale": {
                "params/clip/visual/proj/kernel": 2.0**-9,
                "params/clip/text/text_projection/kernel": 2.0**-9,
            },
        },
    ]


def _texts(folder: Path) -> list[dict[str, Any]]:
    """Texts with their ids, one of exactly 77 and one of more."""
    text_config = read_config("little_lens", read_json(folder / "config_little_lens.json")).text
    tokenizer = MagicLensTokenizer.from_folder(TOKENIZER_FOLDER, text_config)
    limit = text_config.max_position_embeddings
    texts = {**TEXTS, "longest": random_text(limit - 2, 5), "longer": random_text(limit + 20, 6)}
    entries = []
    for name, text in texts.items():
        (ids,) = tokenizer([text])
        entry: dict[str, Any] = {
            "name": name,
            "text": text,
            "cleaned": clean_text(text),
            "length": len(ids),
        }
        if len(ids) > limit:
            cut = truncate(ids, limit).tolist()
            entry |= {"refused": "RuntimeError", "ids_untruncated": ids.tolist(), "ids_truncated": cut}
        else:
            entry["ids"] = ids.tolist()
        entries.append(entry)
    return entries


def _preprocessing(folder: Path) -> dict[str, Any]:
    arrays, facts = {}, {}
    for name in IMAGES:
        square = squash_image(Image.open(folder / "images" / name))
        arrays[f"unit_rows/{name}"] = square.transpose(1, 2, 0)[ROWS]
        facts[name] = {
            "unit_mean": square.mean((1, 2)).tolist(),
            "unit_std": square.std((1, 2)).tolist(),
            "unit_min": float(square.min()),
            "unit_max": float(square.max()),
        }
    np.savez_compressed(folder / "golden_preprocessing.npz", **arrays)
    return {"golden": "golden_preprocessing.npz", "rows": ROWS, "images": facts}


def _write_checkpoints(
    folder: Path, model: str, section: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """The model as a file, a small tree, and two files that must be refused; return the index."""
    small = {
        "params/a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "params/b/c": np.float32(2).reshape(()),
    }
    for name, tree in (("whole.pkl", arrays), ("format_small.pkl", small)):
        shapes = {key: array.shape for key, array in tree.items()}
        with (folder / name).open("wb") as file:
            file.writelines(pickled_tree(shapes, lambda key, _, tree=tree: tree[key]))  # type: ignore[misc]
    sound = (folder / "format_small.pkl").read_bytes()
    (folder / "bad_cut.pkl").write_bytes(sound[:-9])
    (folder / "bad_list.pkl").write_bytes(pickled_bytes(b"\x93\x01\x02\x03"))
    facts = {
        key: {
            "shape": list(array.shape),
            "dtype": "float32",
            "sha256": hashlib.sha256(array.astype("<f4").tobytes()).hexdigest(),
        }
        for key, array in small.items()
    }
    return [
        {"file": "whole.pkl", "expect": "accept", "model": model, "weights_seed": section["weights_seed"]},
        {"file": "format_small.pkl", "expect": "accept", "arrays": facts},
        {"file": "bad_cut.pkl", "expect": "refuse"},
        {"file": "bad_list.pkl", "expect": "refuse"},
    ]
