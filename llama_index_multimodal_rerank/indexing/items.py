"""Item: a picture on its way from the list to the stages, as one line of JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.folders import absolute_path, list_files
from ..data.listed_image import ListedImage
from ..data.listing import FoundFile
from ..images.errors import ImageLoadError
from ..images.sources import as_path, is_url
from ..schema.image_node import default_node_id
from ..schema.values import NodeValueError, check_text, storable_metadata


@dataclass(frozen=True)
class Item:
    """A picture that was not opened yet.

    Attributes:
        image: absolute path, or URL.
        id_: of its node.
        given: it was named, and not found in a folder where there are other files, too.
        is_listed: text and metadata came with it; those of others are made from the path.
        text: its caption.
        metadata: as stores keep it.
        problem: why it is left out, if that is known already.
    """

    image: str
    id_: str
    given: bool = True
    is_listed: bool = False
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def to_json(self) -> str:
        """Return the item in ASCII: a name may hold bytes that are not UTF-8, which Arrow refuses."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Item:
        """Return the item that :meth:`to_json` wrote."""
        return cls(**json.loads(line))


def list_items(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str] | ListedImage],
    *,
    recursive: bool,
    glob: str | None,
) -> Iterator[Item]:
    """List the pictures of a folder, of a file of paths (``.txt``), or of an iterable, each once.

    Raises:
        FileNotFoundError: ``source`` is a path, and there is nothing.
        ValueError: ``source`` is a file of another kind; or two different pictures are given one id.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _each_once(map(_from_given, source))
    path = absolute_path(source)
    if path.is_dir():
        return map(_from_found, list_files(path, recursive=recursive, glob=glob))
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {str(path)!r}")
    if path.suffix.lower() != ".txt":
        raise ValueError(
            f"source must be a folder, a file of paths ('.txt', one a line), a Parquet file or folder "
            f"('.parquet'), or an iterable of paths and ListedImages, got {str(path)!r}. Lines of Amazon "
            "Reviews: list_amazon_images(read_amazon_items(path))."
        )
    return _each_once(
        _from_given(os.fsdecode(line)) for line in path.read_bytes().splitlines() if line.strip()
    )


def item_of(listed: ListedImage, base: Path | None = None) -> Item:
    """Return the item of a listed picture; values that cannot be kept are its problem.

    Args:
        listed: by the user.
        base: where relative paths begin. Default: the working directory.
    """
    owner, text, metadata, problem = repr(str(listed.image)), "", {}, None
    place, id_ = _place(listed.image, base), listed.id_
    try:
        if id_ is None or id_ == "":
            id_ = default_node_id(place)
        check_text(id_, owner, "id_")
        check_text(listed.text, owner, "text")
        text, metadata = str(listed.text), storable_metadata(listed.metadata, owner)
    except NodeValueError as error:
        problem = f"{error.place} {error.reason}"
    return Item(str(place), str(id_), True, True, text, metadata, problem)


def _from_given(given: str | os.PathLike[str] | ListedImage) -> Item:
    if isinstance(given, ListedImage):
        return item_of(given)
    place = _place(given)
    return Item(str(place), default_node_id(place))


def _place(image: str | os.PathLike[str], base: Path | None = None) -> Path | str:
    """Return the absolute path of a picture, or its URL."""
    if is_url(image):
        return str(image)
    path = as_path(image)
    if path is None:
        raise ValueError(f"a picture must be listed by its path or URL, got {image!r:.200}")
    path = Path(os.path.expanduser(path))  # noqa: PTH111 (Path's raises for names like "~$a.jpg")
    return absolute_path(path if base is None else base / path)


def _from_found(file: FoundFile) -> Item:
    problem = file.problem.reason if isinstance(file.problem, ImageLoadError) else file.problem
    return Item(str(file.path), default_node_id(file.path), file.given, problem=problem)


def _each_once(items: Iterable[Item]) -> Iterator[Item]:
    """Leave out what comes again; refuse two pictures of one id, of which the store would keep either."""
    seen: dict[str, int] = {}
    for item in items:
        content = hash((item.image, item.text, json.dumps(item.metadata, sort_keys=True)))
        if item.id_ not in seen or item.problem is not None:
            seen[item.id_] = content
            yield item
        elif seen[item.id_] != content:
            raise ValueError(
                f"two different pictures have one id, and in a store one would replace the other: "
                f"{item.id_!r}, the second of them {item.image!r}. Give each an id of its own: "
                "ListedImage(..., id_=...)."
            )


def content_key(text: str, metadata: Mapping[str, Any]) -> str:
    """Return what two rows of one id have in common if they would be equal.

    Args:
        text: the row's.
        metadata: the row's; what follows from the picture's bytes is not looked at, its digest is.
    """
    kept = {key: value for key, value in metadata.items() if key not in _FOLLOWS_FROM_BYTES}
    return hashlib.sha256(json.dumps([text, kept], sort_keys=True).encode()).hexdigest()


_FOLLOWS_FROM_BYTES = frozenset({"file_type", "file_size", "image_width", "image_height"})
