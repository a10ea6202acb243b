"""CIRCO, composed image retrieval on common objects in context (https://github.com/miccunifi/CIRCO)."""

from __future__ import annotations

import os
import string
from pathlib import Path
from typing import Literal

from .benchmark import Benchmark, BenchmarkQuery, Gallery, each_id_once
from .files import check_present
from .json_files import BenchmarkFileError, Entry, check_different, entries, read_json, shown
from .metrics import average_precision_at, recall_at

NAME = "CIRCO"
DEPTHS = (5, 10, 25, 50)
DEFAULT_CAPTION = "{relative_caption}"

_METRICS = (
    *(average_precision_at(depth) for depth in DEPTHS),
    *(recall_at(depth, right="target") for depth in DEPTHS),
)
_CAPTION_KEYS = ("relative_caption", "shared_concept")
_WAY_OUT = "Take the file from the CIRCO repository"
_COCO_WAY_OUT = "Take image_info_unlabeled2017.json of COCO 2017, or pass images= alone to list the folder"


def load_circo(
    folder: str | os.PathLike[str],
    split: Literal["val", "test"] = "val",
    *,
    caption: str = DEFAULT_CAPTION,
    images: str | os.PathLike[str] | None = None,
) -> Benchmark:
    """Read a split of CIRCO.

    A query is a reference picture and a caption; several pictures are right, the first of them is the target
    that the caption was written for. The reference stays in the ranking, as in CIRCO's own baseline. mAP@K
    counts all right pictures and divides by min(their number, K), Recall@K looks for the target alone. The
    answers of ``test`` are not published: evaluate it, and write the file for the server with
    :func:`.submissions.write_circo_submission`.

    Args:
        folder: the one with ``annotations/<split>.json``, and with ``COCO2017_unlabeled``, in which are
            ``annotations/image_info_unlabeled2017.json`` and the pictures, ``unlabeled2017``. Without the
            file of COCO the gallery is a listing of the pictures' folder.
        split: ``"val"`` (220 queries) or ``"test"`` (800).
        caption: how a query's text is made of ``{relative_caption}`` and ``{shared_concept}``. Figures with
            and without the shared concept are not comparable.
        images: the folder of the pictures. Default: as above.

    Returns:
        The benchmark; its groups are the semantic aspects of the queries. Ids are those of COCO, as texts.

    Raises:
        FileNotFoundError: a file or a picture is missing.
        BenchmarkFileError: a file is not of the published format.
        ValueError: ``split`` is neither of its values, or ``caption`` names something else.
    """
    if split not in ("val", "test"):
        raise ValueError(f"split must be 'val' or 'test', got {split!r}")
    _check_caption(caption)
    folder = Path(folder)
    coco = folder / "COCO2017_unlabeled"
    root = Path(images) if images is not None else coco / "unlabeled2017"
    info = coco / "annotations" / "image_info_unlabeled2017.json"
    files = _read_info(info, root) if info.is_file() else _list_pictures(root)
    annotations = folder / "annotations" / f"{split}.json"
    queries = each_id_once(
        "id",
        (
            (entry, _query(entry, files, caption, with_target=split == "val"))
            for entry in entries(annotations, read_json(annotations, _WAY_OUT), _WAY_OUT)
        ),
    )
    check_present(files, root)
    return Benchmark(
        name=NAME,
        split=split,
        queries=queries,
        metrics=_METRICS,
        gallery=Gallery("COCO 2017 unlabeled", frozenset(files), files),
        reference="kept",
        caption_join=repr(caption),
    )


def _check_caption(caption: str) -> None:
    try:
        names = [name for _, name, *_ in string.Formatter().parse(caption) if name is not None]
        caption.format(**dict.fromkeys(_CAPTION_KEYS, ""))
    except (ValueError, LookupError, AttributeError):
        names = []
    if not names or any(name not in _CAPTION_KEYS for name in names):
        raise ValueError(
            f"caption must be made of {{relative_caption}} and {{shared_concept}}, got {caption!r}"
        )


def _read_info(path: Path, root: Path) -> dict[str, Path]:
    data = read_json(path, _COCO_WAY_OUT)
    if not isinstance(data, dict):
        raise BenchmarkFileError(
            f"{path}: an object with 'images' is expected, got {shown(data)}. {_COCO_WAY_OUT}"
        )
    pictures = Entry(path, "the whole", data, _COCO_WAY_OUT)
    files: dict[str, Path] = {}
    if "images" not in data:
        raise pictures.error(f"'images' is missing; there are {', '.join(map(repr, data)) or 'no keys'}")
    for entry in entries(path, data["images"], _COCO_WAY_OUT):
        id_ = str(entry.integer("id"))
        if id_ in files:
            raise entry.error(f"the image id {id_} is there already")
        files[id_] = root / entry.text("file_name")
    return files


def _list_pictures(root: Path) -> dict[str, Path]:
    """Return the pictures of a folder by their numbers: ``000000243611.jpg`` is 243611."""
    paths = sorted(root.glob("*.jpg")) if root.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"no pictures (*.jpg) in {str(root)!r}. {_COCO_WAY_OUT}")
    if wrong := [path.name for path in paths if not (path.stem.isascii() and path.stem.isdigit())]:
        raise BenchmarkFileError(
            f"{root}: names must be numbers, as COCO's are, got {wrong[0]!r}. {_COCO_WAY_OUT}"
        )
    return {str(int(path.stem)): path for path in paths}


def _query(entry: Entry, files: dict[str, Path], caption: str, *, with_target: bool) -> BenchmarkQuery:
    reference = _known(entry, "reference_img_id", entry.integer("reference_img_id"), files)
    relevant: tuple[str, ...] = ()
    if with_target:
        target = str(entry.integer("target_img_id"))
        right = [_known(entry, "gt_img_ids", id_, files) for id_ in entry.integers("gt_img_ids")]
        check_different(entry, "gt_img_ids", right)
        if target not in right:
            raise entry.error(f"the target_img_id {target} is not among the gt_img_ids")
        relevant = (target, *(id_ for id_ in right if id_ != target))
    text = caption.format(**{key: entry.text(key).strip() for key in _CAPTION_KEYS})
    return BenchmarkQuery(
        id_=str(entry.integer("id")),
        text=text,
        image=str(files[reference]),
        relevant=relevant,
        groups=entry.texts("semantic_aspects") if entry.values.get("semantic_aspects") else (),
    )


def _known(entry: Entry, key: str, id_: int, files: dict[str, Path]) -> str:
    if str(id_) not in files:
        raise entry.error(f"{key!r} names the picture {id_}, which the gallery does not have")
    return str(id_)
