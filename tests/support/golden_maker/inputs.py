"""Texts, pictures and tokenizers, none of them those of the public set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers, trainers

from ..drawing import draw_picture

WORDS = [
    "lamp",
    "chair",
    "river",
    "stone",
    "window",
    "garden",
    "yellow",
    "heavy",
    "small",
    "quick",
    "paper",
    "copper",
    "winter",
    "boat",
    "over",
    "near",
    "beside",
]
TEXTS = {
    "plain": "A copper lamp stands beside the window.",
    "edit": "Show the chair in yellow, and leave the rest as it is.",
    "list": "1) lamp; 2) chair; 3) boat (wooden, 40 cm x 12 cm) -- item 77/B?",
    "fr": "Où est passée la chaise en bois près de la fenêtre ?",
    "ko": "작은 배가 강 옆에 있다.",
    "ja": "川のそばに小さな船があります。",
    "mixed": "Smörgås über \u00bc ﬂ 舟 🙂 é",
}


def random_text(words: int, seed: int) -> str:
    """A text of so many words."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def write_images(folder: Path, sizes: Mapping[str, tuple[str, int, int]], seed: int) -> dict[str, Path]:
    """Draw a picture for each file name, in a Pillow mode and a size."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (mode, width, height)) in enumerate(sizes.items()):
        picture = draw_picture(1000 * seed + number, (width, height))
        options: dict[str, Any] = {}
        if mode in ("RGBA", "LA"):
            picture = picture.convert(mode)
            picture.putalpha(draw_picture(7 + number, (width, height)).convert("L"))
        elif mode.startswith("P"):
            picture = picture.quantize(40)
            if mode != "P":
                options["transparency"] = bytes(range(0, 240, 6))
        elif mode == "I;16":
            gray = np.asarray(picture.convert("L")).astype("<u2") * 3
            picture = Image.fromarray(gray)
        elif mode == "EXIF 6":
            exif = picture.getexif()
            exif[0x0112] = 6
            options["exif"] = exif
        elif mode != "RGB":
            picture = picture.convert(mode)
        picture.save(folder / name, **options)
    return {name: folder / name for name in sizes}


def write_tokenizer(folder: Path, template: Path, vocab_size: int, config: Mapping[str, Any]) -> int:
    """Train a tokenizer on the texts above; everything but the vocabulary is as in the template's folder.

    Args:
        folder: made here.
        template: folder of a tokenizer of the public set.
        vocab_size: pieces to end up with; training may end with fewer.
        config: goes into ``config.json``.

    Returns:
        How many ids the tokenizer has.
    """
    folder.mkdir(parents=True)
    data = json.loads((template / "tokenizer.json").read_text(encoding="utf-8"))
    kind = data["model"]["type"]
    added = {token["content"]: token["id"] for token in data["added_tokens"]}
    before = len(data["model"]["vocab"])
    first = {token: id_ for token, id_ in added.items() if id_ < 10}
    trained = _train(kind, data, vocab_size, list(first))
    old_model = data["model"]
    if kind == "Unigram":
        last = [[token, 0.0] for token, id_ in added.items() if 10 <= id_ < before]
        vocab: Any = [*trained["vocab"], *last]
    else:
        vocab = trained["vocab"]
    data["model"] = {**old_model, "vocab": vocab}
    if "merges" in trained:
        data["model"]["merges"] = trained["merges"]
    moved = len(vocab) - before
    for token in data["added_tokens"]:
        token["id"] += moved if token["id"] >= 10 else 0
    write_json(folder / "tokenizer.json", data)
    write_json(folder / "config.json", config)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (template / name).exists():
            shutil.copyfile(template / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] = {
            str(int(id_) + (moved if int(id_) >= 10 else 0)): token
            for id_, token in settings["added_tokens_decoder"].items()
        }
        write_json(folder / "tokenizer_config.json", settings)
    if kind == "WordPiece":
        lines = sorted(vocab, key=vocab.__getitem__)
        (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return max(len(vocab), 1 + max(token["id"] for token in data["added_tokens"]))


def _train(kind: str, data: Mapping[str, Any], vocab_size: int, special: list[str]) -> dict[str, Any]:
    bare = {**data, "added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
    if kind == "BPE":
        special = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
        bare["model"] = {**data["model"], "vocab": {}, "merges": [], "unk_token": None}
    elif kind == "WordPiece":
        bare["model"] = {**data["model"], "vocab": {"[UNK]": 0}}
    else:
        bare["model"] = {**data["model"], "vocab": [["<unk>", 0.0]], "unk_id": 0}
    tokenizer = Tokenizer.from_str(json.dumps(bare))
    options: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
    if kind == "BPE":
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        trainer: Any = trainers.BpeTrainer(**options)
    elif kind == "WordPiece":
        trainer = trainers.WordPieceTrainer(**options)
    else:
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **options)
    tokenizer.train_from_iterator(_corpus(), trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def _corpus() -> Iterable[str]:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    yield from (" ".join(alphabet), " ".join(alphabet.upper()), " ".join("0123456789.,:;!?'\"()[]<>|/-_"))
    for number in range(40):
        yield from TEXTS.values()
        yield random_text(12, number)


def write_json(path: Path, data: Any) -> None:
    """Write a file as the public set has them."""
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
