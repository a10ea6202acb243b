"""CIRR rc2, composed image retrieval on real-life images (https://github.com/Cuberick-Orion/CIRR)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from .benchmark import Benchmark, BenchmarkQuery, Gallery, each_id_once
from .files import check_present
from .json_files import BenchmarkFileError, Entry, check_different, entries, read_json, shown
from .metrics import recall_at, subset_recall_at

NAME = "CIRR"
VERSION = "rc2"
MEMBERS = 6
"""Pictures of a subset, the reference among them."""

_METRICS = (
    *(recall_at(depth, right="target") for depth in (1, 5, 10, 50)),
    *(subset_recall_at(depth) for depth in (1, 2, 3)),
)
_WAY_OUT = "Take the file from the branch cirr_dataset of the CIRR repository"


def load_cirr(
    folder: str | os.PathLike[str],
    split: Literal["val", "test1"] = "val",
    *,
    images: str | os.PathLike[str] | None = None,
) -> Benchmark:
    """Read a split of CIRR.

    A query is a reference picture and a caption; the one right answer is ``target_hard``. The reference is
    taken out of the ranking, as CIRR's own figures have it. Recall_subset@K ranks the other five pictures of
    the reference's set. The answers of ``test1`` are not published: evaluate it, and write the files for the
    server with :func:`.submissions.write_cirr_submission`.

    Args:
        folder: the one with ``captions/cap.rc2.<split>.json`` and ``image_splits/split.rc2.<split>.json``.
        split: ``"val"`` (4,181 queries) or ``"test1"``.
        images: the folder in which the pictures lie as the split file says (``dev/…``, ``test1/…``). Default:
            ``img_raw`` of ``folder`` if it is there, else ``folder``.

    Returns:
        The benchmark; its gallery are the pictures of the split.

    Raises:
        FileNotFoundError: a file or a picture is missing.
        BenchmarkFileError: a file is not of the published format.
        ValueError: ``split`` is neither of its values.
    """
    if split not in ("val", "test1"):
        raise ValueError(f"split must be 'val' or 'test1', got {split!r}")
    folder = Path(folder)
    captions = folder / "captions" / f"cap.{VERSION}.{split}.json"
    root = Path(images) if images is not None else folder / "img_raw"
    if images is None and not root.is_dir():
        root = folder
    files = _read_split(folder / "image_splits" / f"split.{VERSION}.{split}.json", root)
    queries = each_id_once(
        "pairid",
        (
            (entry, _query(entry, files, with_target=split == "val"))
            for entry in entries(captions, read_json(captions, _WAY_OUT), _WAY_OUT)
        ),
    )
    check_present(files, root)
    return Benchmark(
        name=NAME,
        split=split,
        queries=queries,
        metrics=_METRICS,
        gallery=Gallery("all pictures of the split", frozenset(files), files),
        reference="removed",
    )


def _read_split(path: Path, root: Path) -> dict[str, Path]:
    data = read_json(path, _WAY_OUT)
    if not isinstance(data, dict) or not data:
        raise BenchmarkFileError(
            f"{path}: an object of names and paths is expected, got {shown(data)}. {_WAY_OUT}"
        )
    entry = Entry(path, "the list of pictures", data, _WAY_OUT)
    return {name: root / entry.text(name) for name in data}


def _query(entry: Entry, files: dict[str, Path], *, with_target: bool) -> BenchmarkQuery:
    reference = _known(entry, "reference", entry.text("reference"), files)
    members = entry.object("img_set").texts("members", count=MEMBERS)
    check_different(entry, "members", members)
    for member in members:
        _known(entry, "members", member, files)
    if reference not in members:
        raise entry.error(f"the reference {reference!r} is not among the members of its img_set")
    relevant: tuple[str, ...] = ()
    if with_target:
        target = entry.text("target_hard")
        if target not in members:
            raise entry.error(f"the target_hard {target!r} is not among the members of its img_set")
        if target == reference:
            raise entry.error(f"target_hard and reference are the same picture, {target!r}")
        relevant = (target,)
    return BenchmarkQuery(
        id_=str(entry.integer("pairid")),
        text=entry.text("caption").strip(),
        image=str(files[reference]),
        relevant=relevant,
        excluded=(reference,),
        subset=tuple(member for member in members if member != reference),
    )


def _known(entry: Entry, key: str, name: str, files: dict[str, Path]) -> str:
    if name not in files:
        raise entry.error(f"{key!r} names the picture {name!r}, which the split file does not have")
    return name
