"""A few queries of CIRR, FashionIQ and CIRCO, in files of the published formats, with tiny pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

CIRR = [f"dev-{number}-0-img0" for number in range(10)]

CIRR_QUERIES: list[dict[str, Any]] = [
    {
        "pairid": pairid,
        "reference": CIRR[reference],
        "target_hard": CIRR[target],
        "target_soft": {CIRR[target]: 1.0, CIRR[members[3]]: -1.0},
        "caption": caption,
        "img_set": {
            "id": pairid - 12000,
            "members": [CIRR[member] for member in members],
            "reference_rank": 0,
            "target_rank": 3,
        },
    }
    for pairid, reference, target, members, caption in [
        (12060, 0, 1, (3, 4, 1, 2, 0, 5), "show three bottles of soft drink"),
        (12062, 2, 3, (2, 3, 4, 5, 6, 7), "Fewer paper towels per pack"),
        (12081, 7, 6, (0, 1, 7, 6, 2, 3), "Two animals, and no human appearing"),
    ]
]

CIRCO = [9761, 489535, 57541, 375057, 119881, 85932, 243611, 535009, 97553, 7, 80, 901]

CIRCO_QUERIES: list[dict[str, Any]] = [
    {
        "reference_img_id": 85932,
        "target_img_id": 9761,
        "relative_caption": "is held by a little girl on a chair",
        "shared_concept": "a teddy bear",
        "gt_img_ids": [9761, 489535, 57541],
        "id": 0,
        "semantic_aspects": ["addition", "viewpoint"],
    },
    {
        "reference_img_id": 901,
        "target_img_id": 80,
        "relative_caption": "has two of them",
        "shared_concept": "a cup",
        "gt_img_ids": [80, 9761, 489535, 57541, 375057, 119881],
        "id": 1,
        "semantic_aspects": ["cardinality"],
    },
]


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def draw(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number * 7 % 256, 90, number % 256)).save(path)
    return path


def write_cirr(folder: Path, queries: list[Any] | None = None, split: str = "val") -> Path:
    """Write CIRR with ten pictures and three queries; ``test1`` has no targets, as published."""
    queries = CIRR_QUERIES if queries is None else queries
    if split == "test1":
        hidden = ("target_hard", "target_soft")
        queries = [{key: each[key] for key in each if key not in hidden} for each in queries]
    write_json(folder / "captions" / f"cap.rc2.{split}.json", queries)
    paths = {name: f"./dev/{name}.png" for name in CIRR}
    write_json(folder / "image_splits" / f"split.rc2.{split}.json", paths)
    for number, name in enumerate(CIRR):
        draw(folder / "img_raw" / "dev" / f"{name}.png", number)
    return folder


def fashion_names(category: str, count: int = 13) -> list[str]:
    """Return names like the published ones, ten letters and digits."""
    return [f"B0{category[:2].upper()}{number:06}" for number in range(count)]


def write_fashion_iq(folder: Path, category: str, queries: list[Any] | None = None) -> Path:
    """Write a category with thirteen pictures, and two queries that name four of them."""
    names = fashion_names(category)
    if queries is None:
        queries = [
            {"target": names[11], "candidate": names[0], "captions": ["is red", "has no sleeves "]},
            {"target": names[2], "candidate": names[1], "captions": ["is longer", "is darker"]},
        ]
    write_json(folder / "captions" / f"cap.{category}.val.json", queries)
    write_json(folder / "image_splits" / f"split.{category}.val.json", names)
    for number, name in enumerate(names):
        draw(folder / "images" / f"{name}.{'jpg' if number % 2 else 'png'}", number)
    return folder


def write_circo(folder: Path, queries: list[Any] | None = None, split: str = "val") -> Path:
    """Write CIRCO with twelve pictures of COCO and two queries; ``test`` has no targets, as published."""
    queries = CIRCO_QUERIES if queries is None else queries
    if split == "test":
        hidden = ("target_img_id", "gt_img_ids", "semantic_aspects")
        queries = [{key: each[key] for key in each if key not in hidden} for each in queries]
    write_json(folder / "annotations" / f"{split}.json", queries)
    coco = folder / "COCO2017_unlabeled"
    images = [
        {"license": 2, "file_name": f"{id_:012}.jpg", "height": 8, "width": 8, "id": id_} for id_ in CIRCO
    ]
    write_json(coco / "annotations" / "image_info_unlabeled2017.json", {"info": {}, "images": images})
    for number, id_ in enumerate(CIRCO):
        draw(coco / "unlabeled2017" / f"{id_:012}.jpg", number)
    return folder
