"""FashionIQ (https://github.com/XiaoxiaoGuo/fashion-iq): its validation split, a category at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from .benchmark import Benchmark, BenchmarkQuery, Gallery
from .files import check_present
from .json_files import BenchmarkFileError, Entry, entries, read_json, shown
from .metrics import recall_at

NAME = "FashionIQ"
CATEGORIES = ("dress", "shirt", "toptee")

_METRICS = tuple(recall_at(depth, right="target") for depth in (10, 50))
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_WAY_OUT = "Take the file from the FashionIQ repository"


def load_fashion_iq(
    folder: str | os.PathLike[str],
    category: Literal["dress", "shirt", "toptee"],
    *,
    gallery: Literal["original", "union"] = "original",
    caption_join: str = " and ",
    images: str | os.PathLike[str] | None = None,
) -> Benchmark:
    """Read the validation queries of a category of FashionIQ.

    A query is a reference picture (``candidate``) and two captions, joined; the one right answer is
    ``target``. The reference stays in the ranking. What is published as FashionIQ's figure is the average of
    the three categories, each searched in its own gallery: evaluate each, then :func:`.results.average`.

    Args:
        folder: the one with ``captions/cap.<category>.val.json`` and, for the original gallery,
            ``image_splits/split.<category>.val.json``.
        category: ``"dress"``, ``"shirt"`` or ``"toptee"``.
        gallery: ``"original"``, all pictures of the split file; or ``"union"``, the references and targets of
            the validation captions, as VAL and those after it have it: fewer pictures, and higher figures.
        caption_join: what stands between the two captions, whose outer spaces are taken off.
        images: the folder of the pictures, ``<name>.png`` or ``.jpg``. Default: ``images`` of ``folder``.

    Returns:
        The benchmark.

    Raises:
        FileNotFoundError: a file or a picture is missing.
        BenchmarkFileError: a file is not of the published format.
        ValueError: ``category`` or ``gallery`` is none of its values.
    """
    if category not in CATEGORIES:
        raise ValueError(f"category must be one of {', '.join(CATEGORIES)}, got {category!r}")
    if gallery not in ("original", "union"):
        raise ValueError(f"gallery must be 'original' or 'union', got {gallery!r}")
    folder = Path(folder)
    captions = folder / "captions" / f"cap.{category}.val.json"
    found = entries(captions, read_json(captions, _WAY_OUT), _WAY_OUT)
    pairs = [(entry.text("candidate"), entry.text("target")) for entry in found]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if gallery == "original":
        names = _read_split(folder / "image_splits" / f"split.{category}.val.json")
        _check_known(found, pairs, names)
    root = Path(images) if images is not None else folder / "images"
    files = _find_files(names, root)
    queries = [
        BenchmarkQuery(
            id_=f"{category}-{number}",
            text=caption_join.join(caption.strip() for caption in entry.texts("captions", count=2)),
            image=str(files[reference]),
            relevant=(target,),
            groups=(category,),
        )
        for number, (entry, (reference, target)) in enumerate(zip(found, pairs, strict=True))
    ]
    check_present(files, root)
    return Benchmark(
        name=f"{NAME} {category}",
        split="val",
        queries=tuple(queries),
        metrics=_METRICS,
        gallery=Gallery(gallery, frozenset(files), files),
        reference="kept",
        caption_join=repr(caption_join),
    )


def _read_split(path: Path) -> list[str]:
    data = read_json(path, _WAY_OUT)
    if not isinstance(data, list) or not data:
        raise BenchmarkFileError(f"{path}: a list of names is expected, got {shown(data)}. {_WAY_OUT}")
    names = Entry(path, "the list of names", {"names": data}, _WAY_OUT).texts("names")
    return list(dict.fromkeys(names))  # a gallery is a set


def _check_known(found: list[Entry], pairs: list[tuple[str, str]], names: list[str]) -> None:
    known = set(names)
    for entry, pair in zip(found, pairs, strict=True):
        for key, name in zip(("candidate", "target"), pair, strict=True):
            if name not in known:
                raise entry.error(f"{key!r} names the picture {name!r}, which the split file does not have")


def _find_files(names: list[str], root: Path) -> dict[str, Path]:
    """Return each picture's file; of one that is not there, where it would be."""
    there = {path.name: path for path in root.iterdir()} if root.is_dir() else {}
    return {
        name: next(
            (there[f"{name}{ending}"] for ending in _ENDINGS if f"{name}{ending}" in there),
            root / f"{name}{_ENDINGS[0]}",
        )
        for name in names
    }
