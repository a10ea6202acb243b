"""load_image_nodes: from a folder of files to nodes that embed as pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..images.access import ImageAccess
from ..images.errors import ImageLoadError, ImageNotFoundError
from ..images.files import read_start
from ..images.sources import begins_as_picture
from ..schema.image_node import check_name, make_image_node
from ..schema.nodes import ImageTextNode
from ..schema.values import NodeValueError
from .listing import FoundFile, list_folder, parse_glob

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo"}
    | {".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".avifs"}
    | {".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
    | {".heic", ".heics", ".heif", ".heifs", ".hif"}
)
"""File name endings that say that a file is a picture, in lower case."""

NOT_A_PICTURE = "not a picture: neither its name nor its first bytes are those of a known format"
"""Reason of files in a folder that were never meant to be pictures."""

_START_BYTES = 32


class SkippedImage(NamedTuple):
    """A file or folder that :func:`load_image_nodes` left out, and why.

    Bytes of ``path`` that are not UTF-8 are surrogates, as Python writes them: ``open(path)`` works,
    ``print(repr(path))`` too, ``print(path)`` may not.
    """

    path: str
    reason: str


class ImageNodeList(list[ImageTextNode]):
    """The nodes that :func:`load_image_nodes` made.

    Attributes:
        skipped: the files left out: of a folder, those that are no pictures, and links to folders;
            under ``on_error="skip"`` also pictures and folders that cannot be read.
    """

    def __init__(self, nodes: Iterable[ImageTextNode] = (), skipped: Iterable[SkippedImage] = ()) -> None:
        super().__init__(nodes)
        self.skipped = list(skipped)


def load_image_nodes(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
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

    In a folder, a file is a picture if its name ends as pictures do (:data:`IMAGE_SUFFIXES`) or its first
    bytes are those of one; so a picture without an ending, or with a wrong one, is loaded. Others
    (``README.txt``, films, ``Thumbs.db``) and links to folders, which are not followed, are listed in
    ``.skipped`` with the reason, whatever ``on_error`` says. Pictures, folders, and files of which nobody
    can tell because they cannot be opened, follow ``on_error`` if they cannot be read. Hidden files and
    folders, whose names begin with a dot, are left out and not listed.

    HEIC, the format of iPhones, needs pillow-heif (``pip install pillow-heif``, or the extra ``heif``);
    without it such a picture cannot be read, and the reason says so.

    Example:
        A folder with two pictures, one that was cut short, and notes. The price of each stands in its name.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from llama_index_multimodal_rerank import load_image_nodes
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, colour in (("mug-5.png", "red"), ("cup-4.png", "blue")):
        ...     Image.new("RGB", (64, 48), colour).save(folder / name)
        >>> _ = (folder / "broken-1.png").write_bytes((folder / "mug-5.png").read_bytes()[:60])
        >>> _ = (folder / "notes.txt").write_text("to be sorted")
        >>> nodes = load_image_nodes(
        ...     folder,
        ...     text=lambda path: path.stem.split("-")[0],
        ...     metadata=lambda path: {"price": int(path.stem.split("-")[1])},
        ...     on_error="skip",
        ... )
        >>> [(node.text, node.metadata["price"], node.metadata["image_width"]) for node in nodes]
        [('cup', 4, 64), ('mug', 5, 64)]
        >>> [Path(path).name for path, reason in nodes.skipped]
        ['broken-1.png', 'notes.txt']

    Args:
        source: a folder, one file, or many files. Files given one by one all count as pictures.
        recursive: search the folder's subfolders too.
        glob: which files of the folder to look at, for instance ``"*.jpg"``, ``"2024/*"``, ``"**/front.*"``.
            Names that begin with a dot are matched only by a part that does so as well. Default: all.
        text: makes a picture's caption from its path; it is embedded together with the picture.
        metadata: added to each node's metadata; a mapping, or a function of the path. For the values that it
            may hold see :func:`image_node`.
        on_error: ``"raise"`` stops at the first picture or folder that cannot be read, and at the first
            caption or metadata that stores cannot keep; ``"skip"`` leaves it out, logs a warning, and lists
            it in ``.skipped``.
        show_progress: show a progress bar.
        data_root: the only folder that pictures are read from, ``..`` and symbolic links resolved. Set it
            where the files' names come from others, or to keep links from leading out of the folder.

    Returns:
        A list of nodes in sorted path order (files: in the order given, doubles once), with an
        attribute ``skipped``, in the same order. If no picture was found, a warning says how many
        files were looked at.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ImageLoadError: a picture or a folder cannot be read, or a name is not UTF-8 (which neither nodes nor
            stores can hold), and ``on_error="raise"``.
        NodeValueError: a caption or a value of the metadata is one that stores cannot keep, and
            ``on_error="raise"``; it names file and key.
        ValueError: ``on_error`` is neither of its values, or ``glob`` is empty, absolute or has ``..``.
    """
    from concurrent.futures import ThreadPoolExecutor

    from tqdm.auto import tqdm

    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    files = list_files(source, recursive=recursive, glob=glob)
    access = ImageAccess(data_root=data_root)

    def load(file: FoundFile) -> ImageTextNode | ImageLoadError | NodeValueError | str:
        """Return the node, or the error that follows on_error, or why the file is none of our business."""
        try:
            if isinstance(file.problem, ImageLoadError):
                raise file.problem
            if file.problem is not None:
                return file.problem
            if not (file.given or looks_like_picture(file.path, data_root)):
                return NOT_A_PICTURE
            check_name(file.path)
            caption, extra = call_for_file(file.path, text, metadata)
            return make_image_node(file.path, text=caption, metadata=extra, id_=None, access=access)
        except (ImageLoadError, NodeValueError) as error:
            if on_error == "raise":
                raise
            return error

    result = ImageNodeList()
    with ThreadPoolExecutor(thread_name_prefix="load-images") as pool:
        try:
            loaded = tqdm(
                pool.map(load, files), total=len(files), desc="Loading images", disable=not show_progress
            )
            for file, outcome in zip(files, loaded, strict=True):
                if isinstance(outcome, ImageTextNode):
                    result.append(outcome)
                    continue
                failed = not isinstance(outcome, str)
                reason = _reason(outcome)
                # %r: a name may hold line ends, and bytes that cannot be printed
                logger.log(
                    logging.WARNING if failed else logging.INFO, "Skipped %r: %s", str(file.path), reason
                )
                result.skipped.append(SkippedImage(str(file.path), reason))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if not result:
        logger.warning(
            "No picture was found. %d files and folders were looked at, hidden ones left out; "
            ".skipped of the result says why each was not loaded.",
            len(files),
        )
    return result


def _reason(outcome: ImageLoadError | NodeValueError | str) -> str:
    if isinstance(outcome, NodeValueError):
        return f"{outcome.place} {outcome.reason}"
    return outcome if isinstance(outcome, str) else outcome.reason


def looks_like_picture(path: Path, data_root: str | os.PathLike[str] | None) -> bool:
    """Tell whether a file's name or first bytes are those of a picture.

    Raises:
        ImageLoadError: neither its name tells nor can it be opened.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return begins_as_picture(read_start(path, _START_BYTES, name=repr(str(path)), data_root=data_root))


def call_for_file(
    path: Path,
    text: Callable[[Path], str] | None,
    metadata: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] | None,
) -> tuple[str, Mapping[str, Any] | None]:
    """Return caption and metadata of a file.

    Raises:
        ImageNotFoundError: a function looked for the file, which is not there.
    """
    try:
        extra = metadata(path) if callable(metadata) else metadata
        return text(path) if text else "", extra
    except FileNotFoundError as error:
        if os.path.exists(path):  # noqa: PTH110 (Path's raises) - the caller's function looked for another file
            raise
        raise ImageNotFoundError(repr(str(path)), "no such file") from error


def list_files(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, recursive: bool, glob: str | None
) -> list[FoundFile]:
    """Return the files of a folder, or those given, each once; see :func:`load_image_nodes`."""
    if not isinstance(source, (str, os.PathLike)):
        return [FoundFile(path, given=True) for path in dict.fromkeys(map(absolute_path, source))]
    pattern = parse_glob("*" if glob is None else glob, recursive=recursive)
    root = absolute_path(source)
    if os.path.isdir(root):  # noqa: PTH112 (Path's raises where a folder above may not be searched)
        return list_folder(root, pattern)
    try:
        root.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"no such file or folder: {str(root)!r}") from error
    except (OSError, ValueError):  # there may be one, out of reach: reading it will tell
        pass
    return [FoundFile(root, given=True)]


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return a path from the root, ``~`` resolved; links are left alone."""
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 (Path's raises for unknown users)
