"""Amazon Reviews 2023: from the published JSON lines to records and nodes, one line at a time.

The data set (https://amazon-reviews-2023.github.io) has two files for each category, plain or ``.gz``: item
metadata, a line for each product, and reviews, a line for each review.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from ..images.errors import ImageLoadError
from ..schema.image_node import image_node
from ..schema.nodes import ImageTextNode
from .amazon_values import item_images, item_metadata, review_images, review_metadata
from .listed_image import ListedImage

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longer lines are skipped, so that a damaged file cannot fill the memory."""


class SkippedLine(NamedTuple):
    """A line, or a picture of a line, that was left out, and why; ``line`` counts from 1."""

    line: int
    reason: str


@dataclass(frozen=True)
class AmazonImage:
    """A picture of a product.

    Attributes:
        url: where it is.
        variant: ``"MAIN"``, ``"PT01"`` …; of a review ``"REVIEW"``.
    """

    url: str
    variant: str


@dataclass(frozen=True)
class AmazonRecord:
    """A product, or a review of one.

    Attributes:
        line: its line in the file, from 1.
        parent_asin: the product; one for all its colours and sizes.
        images: at least one.
        metadata: flat, for filters; see :func:`read_amazon_items` and :func:`read_amazon_reviews`.
    """

    line: int
    parent_asin: str
    images: tuple[AmazonImage, ...]
    metadata: Mapping[str, str | int | float | bool]


class AmazonRecords(Iterator[AmazonRecord]):
    """The records of a file, read as they are asked for.

    Attributes:
        skipped: the lines left out up to now.
        without_images: how many reviews had no picture up to now; they are not listed in ``skipped``.
    """

    def __init__(self, path: str | os.PathLike[str], kind: Literal["items", "reviews"]) -> None:
        self.skipped: list[SkippedLine] = []
        self.without_images = 0
        self._path = Path(path)
        self._kind = kind
        # The ids alone are remembered, not the products.
        self._seen: dict[str, int] = {}
        self._records = self._read()
        if not self._path.is_file():
            raise FileNotFoundError(f"no such file: {str(self._path)!r}")

    def __next__(self) -> AmazonRecord:
        return next(self._records)

    def _read(self) -> Iterator[AmazonRecord]:
        number = 0
        with _open(self._path) as file:
            try:
                while line := file.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                        while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                            pass
                        self._skip(number, f"the line is longer than {MAX_LINE_BYTES} bytes")
                    elif line.strip() and (record := self._record(number, line)) is not None:
                        yield record
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"{str(self._path)!r}: the gzip data are damaged or cut short after line {number} "
                    f"({error}); download the file again"
                ) from error

    def _record(self, number: int, line: bytes) -> AmazonRecord | None:
        try:
            data = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            return self._skip(number, f"no JSON: {str(error)[:100]}")
        if not isinstance(data, dict):
            return self._skip(number, f"a JSON object is expected, got {type(data).__name__}")
        asin = data.get("parent_asin") or data.get("asin")
        if not isinstance(asin, str) or not asin.strip() or not asin.isascii():
            return self._skip(number, f"parent_asin must be a text in ASCII, got {asin!r:.60}")
        asin = asin.strip()
        if self._kind == "reviews":
            images = review_images(data.get("images"))
            if not images:
                self.without_images += 1
                return None
            metadata = review_metadata(data)
        else:
            if asin in self._seen:
                return self._skip(number, f"the product {asin!r} is in line {self._seen[asin]} already")
            images = item_images(data.get("images"))
            if not images:
                return self._skip(number, f"the product {asin!r} has no picture")
            self._seen[asin] = number
            metadata = item_metadata(data)
        pictures = tuple(AmazonImage(url, variant) for url, variant in images.items())
        return AmazonRecord(number, asin, pictures, {"parent_asin": asin, **metadata})

    def _skip(self, number: int, reason: str) -> AmazonRecord | None:
        self.skipped.append(SkippedLine(number, reason))
        logger.info("Skipped line %d of %r: %s", number, str(self._path), reason)
        return None


def read_amazon_items(path: str | os.PathLike[str]) -> AmazonRecords:
    """Read item metadata, one product after the other.

    Each key of a line becomes one flat value of :attr:`AmazonRecord.metadata`; what cannot be converted is
    left out of it, so that a filter such as ``price < 20`` never meets a text:

    ==================  ==============================  ================================================
    key                 in the file                     in the metadata
    ==================  ==============================  ================================================
    ``parent_asin``     text                            the same; without one the line is skipped
    ``title``           text                            the same; left out if blank
    ``main_category``   text or null                    the same; left out if blank
    ``store``           text or null                    the same; left out if blank
    ``price``           ``12.99``, ``"$1,299.00"``      a float, at least 0
    ``price``           ``"from 12.99"``, ``"5 - 9"``   no ``price``; ``price_text`` has the words
    ``price``           ``"—"``, ``""``, ``null``       left out
    ``average_rating``  ``4.5``, ``"4.5"``              a float from 0 to 5; others are left out
    ``rating_number``   ``120``                         an int, at least 0; others are left out
    ``categories``      list of texts                   one text, joined by ``" > "``
    ``features``        list of texts                   one text, joined by line ends, 4,000 characters
    ``description``     list of texts                   as ``features``
    ``images``          list of ``{thumb, large, …}``   ``hi_res``, else ``large``, else ``thumb``; the
                                                        same URL counts once; ``MAIN`` comes first
    ==================  ==============================  ================================================

    Half of a surrogate pair in a text becomes ``"?"``.

    Skipped, with number and reason in ``.skipped``: lines that are no JSON object, products without an id or
    without a picture, and products that an earlier line had. Blank lines are passed over.

    Args:
        path: ``meta_<category>.jsonl`` or ``.jsonl.gz``; which of both is seen from the first bytes.

    Returns:
        An iterator that reads as it goes. Of the lines before only the ids are kept.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: while reading, the gzip data are damaged or cut short.
    """
    return AmazonRecords(path, "items")


def read_amazon_reviews(path: str | os.PathLike[str]) -> AmazonRecords:
    """Read the reviews that have pictures, one after the other.

    Metadata: ``parent_asin`` and ``asin`` (of the colour or size that was bought), ``rating`` (a float from 0
    to 5), ``title`` and ``text`` (cut at 4,000 characters); blanks and others are left out.
    Of each picture the largest is taken: ``large_image_url``, else ``medium_image_url``, else
    ``small_image_url``.

    Args:
        path: ``<category>.jsonl`` or ``.jsonl.gz``.

    Returns:
        An iterator that reads as it goes. Most reviews have no pictures; ``.without_images`` counts them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: while reading, the gzip data are damaged or cut short.
    """
    return AmazonRecords(path, "reviews")


class AmazonNodeList(list[ImageTextNode]):
    """The nodes that :func:`amazon_nodes` made; ``skipped`` has the pictures that it left out."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: list[SkippedLine] = []


def amazon_nodes(
    records: Iterable[AmazonRecord],
    *,
    images: Literal["main", "all"] = "main",
    files: Mapping[str, Path] | None = None,
    text: Callable[[AmazonRecord], str] | None = None,
) -> AmazonNodeList:
    """Make nodes of records.

    Args:
        records: from :func:`read_amazon_items` or :func:`read_amazon_reviews`; take a part of a large file
            with ``itertools.islice``.
        images: the first picture of each record (of products ``MAIN``, if there is one), or all.
        files: the pictures' files by URL, from :func:`~.downloads.download_images`. Without, nodes hold URLs,
            which are fetched whenever they are embedded or shown: ``VisualizedBGEEmbedding(allow_urls=[…])``.
        text: makes a caption of a record; it is embedded together with the picture.

    Returns:
        A list of nodes, whose metadata is that of the record with ``variant`` and ``source_url``. Ids are
        ``"<parent_asin>:<variant>"`` (of reviews and of variants that come twice with a digest of the URL
        behind), so a new picture of the same variant replaces the old one. Pictures that are not among
        ``files``, or that cannot be read, are in ``.skipped``.

    Raises:
        ValueError: ``images`` is neither of its values.
    """
    nodes = AmazonNodeList()
    for record, listed in _list_images(records, images, text):
        url = str(listed.image)
        if files is not None and url not in files:
            nodes.skipped.append(SkippedLine(record.line, f"{url!r} was not downloaded"))
            continue
        source = url if files is None else files[url]
        try:
            node = image_node(source, text=listed.text, metadata=listed.metadata, id_=listed.id_)
        except ImageLoadError as error:
            nodes.skipped.append(SkippedLine(record.line, str(error)))
            continue
        nodes.append(node)
    return nodes


def list_amazon_images(
    records: Iterable[AmazonRecord],
    *,
    images: Literal["main", "all"] = "main",
    files: Mapping[str, Path] | None = None,
    text: Callable[[AmazonRecord], str] | None = None,
) -> Iterator[ListedImage]:
    """List the pictures of records without opening one, for ``index_with_ray``.

    Args:
        records: as for :func:`amazon_nodes`.
        images: as for :func:`amazon_nodes`.
        files: the pictures' files by URL. Pictures that are not among them are listed by URL.
        text: as for :func:`amazon_nodes`.

    Yields:
        Pictures with the ids and the metadata that :func:`amazon_nodes` gives their nodes.

    Raises:
        ValueError: ``images`` is neither of its values.
    """
    for _, listed in _list_images(records, images, text):
        path = None if files is None else files.get(str(listed.image))
        yield listed if path is None else replace(listed, image=path)


def _list_images(
    records: Iterable[AmazonRecord],
    images: Literal["main", "all"],
    text: Callable[[AmazonRecord], str] | None,
) -> Iterator[tuple[AmazonRecord, ListedImage]]:
    """Yield each picture by its URL, with its record."""
    if images not in ("main", "all"):
        raise ValueError(f"images must be 'main' or 'all', got {images!r}")
    for record in records:
        variants: set[str] = set()
        for image in record.images[: 1 if images == "main" else None]:
            id_ = f"{record.parent_asin}:{image.variant}"
            if image.variant in variants or image.variant == "REVIEW":
                id_ += f":{hashlib.sha256(image.url.encode()).hexdigest()[:16]}"
            variants.add(image.variant)
            metadata = {**record.metadata, "variant": image.variant, "source_url": image.url}
            yield record, ListedImage(image.url, text(record) if text else "", metadata, id_)


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        opened: Any = gzip.open(path, "rb")  # noqa: SIM115 (the caller closes it)
        return opened  # type: ignore[no-any-return]
    return path.open("rb")
