"""What is evaluated: queries with their right answers, a gallery, and the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.folders import ImageNodeList, load_image_nodes
from ..schema.query import ImageTextQuery
from .json_files import Entry, first_double
from .metrics import Metric

IMAGE_ID_KEY = "image_id"
"""Key in a node's metadata that holds the benchmark's id of its picture."""

Sides = Literal["composed", "image", "text"]
"""With what a query is asked: both picture and text, its picture alone, its text alone."""


@dataclass(frozen=True)
class BenchmarkQuery:
    """A query and its right answers.

    Attributes:
        id_: names it among the queries of the benchmark.
        text: its words; may be empty if there is a picture.
        image: its picture, a path, URL or anything that ``ImageTextQuery(image=…)`` takes; or None.
        relevant: ids of the right pictures, the target first; empty where a benchmark keeps them secret.
        excluded: ids that are taken out of the ranking before anything is scored or reranked.
        subset: ids among which the target is looked for a second time; see :func:`.metrics.subset_recall_at`.
        groups: names under which figures are summed up besides those of all queries.
    """

    id_: str
    text: str = ""
    image: Any = field(default=None, repr=False)
    relevant: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    subset: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.text and self.image is None:
            raise ValueError(f"query {self.id_!r} has neither text nor image")
        if (double := first_double(self.relevant)) is not None:
            raise ValueError(f"query {self.id_!r} has the relevant id {double!r} twice")
        if wrong := sorted({*self.relevant} & {*self.excluded}):
            raise ValueError(f"query {self.id_!r}: {wrong[0]!r} is both relevant and excluded")

    @property
    def sides(self) -> Sides:
        """What the query has."""
        if self.image is None:
            return "text"
        return "composed" if self.text else "image"

    def ask(self, sides: Sides) -> ImageTextQuery:
        """Return the query for a retriever, whole or one side of it."""
        text = "" if sides == "image" else self.text
        if sides == "text" or self.image is None:
            return ImageTextQuery(text)
        if isinstance(self.image, (str, Path)):
            return ImageTextQuery(text, image_path=str(self.image))
        return ImageTextQuery(text, image=self.image)


@dataclass(frozen=True)
class Gallery:
    """The pictures that are searched.

    Attributes:
        kind: which of a benchmark's galleries it is, for the protocol.
        ids: their ids.
        files: the pictures' files by id; empty if they are not known.
    """

    kind: str
    ids: frozenset[str]
    files: Mapping[str, Path] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Benchmark:
    """A set of queries with the rules by which their answers are scored.

    Attributes:
        name: ``"CIRR"``.
        split: ``"val"``.
        queries: at least one, their ids all different.
        metrics: what is computed of every list; the deepest says how many pictures are retrieved.
        gallery: None if it is whatever the index holds.
        reference: whether the queries' own pictures are taken out of the rankings.
        caption_join: how a query's text was made of several captions; None if it was not.

    Raises:
        ValueError: no queries or metrics, two queries with one id, or ids that the gallery does not have.
    """

    name: str
    split: str
    queries: tuple[BenchmarkQuery, ...] = field(repr=False)
    metrics: tuple[Metric, ...] = field(repr=False)
    gallery: Gallery | None = field(default=None, repr=False)
    reference: Literal["removed", "kept"] = "kept"
    caption_join: str | None = None

    def __post_init__(self) -> None:
        if not self.queries or not self.metrics:
            raise ValueError(f"{self.name}: at least one query and one metric are needed")
        for what, names in (("queries", self.queries), ("metrics", self.metrics)):
            named = [getattr(each, "id_" if what == "queries" else "name") for each in names]
            if (double := first_double(named)) is not None:
                raise ValueError(f"{self.name}: two {what} are called {double!r}")
        if self.gallery is not None:
            for query in self.queries:
                if unknown := sorted({*query.relevant, *query.subset} - self.gallery.ids):
                    raise ValueError(f"query {query.id_!r}: {unknown[0]!r} is not in the gallery")

    @property
    def depth(self) -> int:
        """How many pictures of the whole gallery are ranked."""
        return max((each.depth for each in self.metrics if each.ranking == "gallery"), default=1)


def each_id_once(key: str, read: Iterable[tuple[Entry, BenchmarkQuery]]) -> tuple[BenchmarkQuery, ...]:
    """Return the queries of a file, if no two have one id.

    Args:
        key: what the file calls it.
        read: entries, each with the query that was read from it.

    Raises:
        BenchmarkFileError: two have.
    """
    queries: dict[str, BenchmarkQuery] = {}
    for entry, query in read:
        if query.id_ in queries:
            raise entry.error(f"the {key} {query.id_} is there already")
        queries[query.id_] = query
    return tuple(queries.values())


def gallery_nodes(benchmark: Benchmark, *, show_progress: bool = False) -> ImageNodeList:
    """Make a node of every picture of a benchmark's gallery, to be indexed.

    The picture's id of the benchmark is in ``metadata["image_id"]``.

    Args:
        benchmark: one whose pictures' files are known.
        show_progress: show a progress bar.

    Raises:
        ValueError: the benchmark does not know its pictures' files.
        ImageLoadError: a picture cannot be read.
    """
    files = {} if benchmark.gallery is None else benchmark.gallery.files
    if not files:
        raise ValueError(
            f"{benchmark.name}: where the gallery's pictures are is not known; index them with "
            f'load_image_nodes, and put their ids into metadata["{IMAGE_ID_KEY}"]'
        )
    ids = {path.absolute(): id_ for id_, path in files.items()}  # as load_image_nodes calls them
    return load_image_nodes(
        list(files.values()),
        metadata=lambda path: {IMAGE_ID_KEY: ids[path]},
        show_progress=show_progress,
    )
