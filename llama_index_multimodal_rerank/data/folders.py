"""load_image_nodes: from a folder of files to nodes that embed as pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..images.access import ImageAccess
from ..images.sources import ImageLoadError, describe_source
from ..schema.nodes import ImageTextNode, make_image_node

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File name endings that a folder is searched for, in lower case."""


class SkippedImage(NamedTuple):
    """A file that :func:`load_image_nodes` left out, and why."""

    path: str
    reason: str


class ImageNodeList(list[ImageTextNode]):
    """The nodes that :func:`load_image_nodes` made.

    Attributes:
        skipped: the files left out under ``on_error="skip"``.
    """

    def __init__(self, nodes: Iterable[ImageTextNode] = (), skipped: Iterable[SkippedImage] = ()) -> None:
        super().__init__(nodes)
        self.skipped = list(skipped)


def load_image_nodes(
    source: str | Path | Iterable[str | Path],
    *,
    recursive: bool = True,
    glob: str | None = None,
    text: Callable[[Path], str] | None = None,
    metadata: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    show_progress: bool = False,
    data_root: str | os.PathLike[str] | None = None,
) -> ImageNodeList:
    """Make a node of every picture in a folder, or of every file given.

    Every file is read and checked to its end, so that a broken one is found now and not in
    the middle of indexing. Nodes hold paths and digests, never pixels.

    Args:
        source: a folder, one file, or many files.
        recursive: search the folder's subfolders too (links to folders are not followed).
        glob: which files of the folder to take, for instance ``"*.jpg"``. Default: all files
            whose name ends as pictures do (:data:`IMAGE_SUFFIXES`) and does not start with a dot.
        text: makes a picture's caption from its path; it is embedded together with the picture.
        metadata: added to each node's metadata; a mapping, or a function of the path.
        on_error: ``"raise"`` stops at the first picture that cannot be read, ``"skip"`` leaves
            such files out, logs a warning for each, and lists them in ``.skipped``.
        show_progress: show a progress bar.
        data_root: the only folder that pictures are read from, ``..`` and symbolic links resolved. Set it
            where the files' names come from others, or to keep links from leading out of the folder.

    Returns:
        A list of nodes in sorted path order (files: in the order given, doubles once), with an
        attribute ``skipped``.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ImageLoadError: a picture cannot be read and ``on_error="raise"``.
        ValueError: ``on_error`` is neither of its values.
    """
    from concurrent.futures import ThreadPoolExecutor

    from tqdm.auto import tqdm

    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    paths = _list_files(source, recursive=recursive, glob=glob)
    access = ImageAccess(data_root=data_root)

    def load(path: Path) -> ImageTextNode | ImageLoadError:
        try:
            extra = metadata(path) if callable(metadata) else metadata
            caption = text(path) if text else ""
            return make_image_node(path, text=caption, metadata=extra, id_=None, access=access)
        except ImageLoadError as error:
            if on_error == "raise":
                raise
            return error

    result = ImageNodeList()
    with ThreadPoolExecutor(thread_name_prefix="load-images") as pool:
        try:
            loaded = tqdm(
                pool.map(load, paths), total=len(paths), desc="Loading images", disable=not show_progress
            )
            for path, outcome in zip(paths, loaded, strict=True):
                if isinstance(outcome, ImageLoadError):
                    logger.warning("Skipped %s: %s", describe_source(path), outcome.reason)
                    result.skipped.append(SkippedImage(str(path), outcome.reason))
                else:
                    result.append(outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result


def _list_files(
    source: str | Path | Iterable[str | Path], *, recursive: bool, glob: str | None
) -> list[Path]:
    if not isinstance(source, (str, Path)):
        return list(dict.fromkeys(Path(path).expanduser().absolute() for path in source))
    root = Path(source).expanduser().absolute()
    if not root.exists():
        raise FileNotFoundError(f"no such file or folder: {str(root)!r}")
    if not root.is_dir():
        return [root]
    found = root.rglob(glob or "*") if recursive else root.glob(glob or "*")
    if glob is not None:
        return sorted(path for path in found if not path.is_dir())
    return sorted(
        path
        for path in found
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )
