"""The user's own queries: a file of JSON lines, written by hand.

{"image": "leopard.jpg", "text": "a phone case with this", "relevant": ["0017.jpg", "0412.jpg"]}
{"text": "a red mug with dots", "relevant": ["0101.jpg"], "groups": ["text"]}
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ..images.access import load_image
from ..images.errors import ImageLoadError
from ..images.sources import is_url
from .benchmark import Benchmark, BenchmarkQuery, Gallery
from .json_files import BenchmarkFileError, Entry, check_different, parse_json, shown
from .metrics import Metric, mrr_at, ndcg_at, recall_at

_KEYS = ("image", "text", "relevant", "exclude", "groups", "id")
_SHOWN = 10
_WAY_OUT = 'A line is like {"image": "a.jpg", "text": "in red", "relevant": ["id1", "id2"]}'
DEFAULT_METRICS: tuple[Metric, ...] = (*map(recall_at, (1, 5, 10)), mrr_at(10), ndcg_at(10))


def load_labelled_queries(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    gallery: Collection[str] | None = None,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
) -> Benchmark:
    """Read queries with their right answers from a file of JSON lines.

    Keys of a line, all but ``relevant`` may be missing, and one of ``image`` and ``text`` must be there:

    ============  ==========================================================================================
    ``image``     path of the query's picture, from ``images`` on, or its URL
    ``text``      its words
    ``relevant``  ids of the right pictures, at least one: the nodes' ``metadata["image_id"]``, their ids, the
                  paths of their pictures, or the names of these files
    ``exclude``   ids that are taken out of the ranking, such as the query's own picture
    ``groups``    names under which figures are summed up, too
    ``id``        a name for the query; default: ``line-<number>``
    ============  ==========================================================================================

    Blank lines are passed over. The whole file is checked, and every picture that is a file is decoded,
    before anything is embedded.

    Args:
        path: the file, in UTF-8.
        images: folder of the queries' pictures. Default: the folder of ``path``.
        gallery: the ids of all pictures that are indexed. With it, an id that none of them has is an error
            instead of a miss, and the protocol says how many there are.
        metrics: what is computed.

    Returns:
        The benchmark, called after the file.

    Raises:
        FileNotFoundError: there is no such file.
        BenchmarkFileError: lines are wrong; names up to ten of them with their numbers.
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    known = None if gallery is None else frozenset(gallery)
    queries: dict[str, BenchmarkQuery] = {}
    faults: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            query = _query(path, number, line, folder, known)
            if query.id_ in queries:
                raise _fault(path, number, f"the id {query.id_!r} is there already")
            queries[query.id_] = query
        except BenchmarkFileError as error:
            faults.append(str(error))
    if faults:
        more = f"\nand {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise BenchmarkFileError("\n".join(faults[:_SHOWN]) + more)
    if not queries:
        raise BenchmarkFileError(f"{path} has no queries. {_WAY_OUT}")
    return Benchmark(
        name=path.stem,
        split="all",
        queries=tuple(queries.values()),
        metrics=tuple(metrics),
        gallery=None if known is None else Gallery("given by the caller", known),
        reference="removed" if any(query.excluded for query in queries.values()) else "kept",
    )


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {str(path)!r}")
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BenchmarkFileError(f"{path} is not in UTF-8: {error}. Save it in UTF-8") from error


def _fault(path: Path, number: int, reason: str) -> BenchmarkFileError:
    return Entry(path, f"line {number}", {}, _WAY_OUT).error(reason)


def _query(path: Path, number: int, line: str, folder: Path, known: frozenset[str] | None) -> BenchmarkQuery:
    try:
        values = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise _fault(path, number, f"no JSON: {error}") from error
    if not isinstance(values, dict):
        raise _fault(path, number, f"a JSON object is expected, got {shown(values)}")
    entry = Entry(path, f"line {number}", values, _WAY_OUT)
    if unknown := [key for key in values if key not in _KEYS]:
        raise entry.error(f"the key {unknown[0]!r} is none of {', '.join(_KEYS)}")
    given = {key for key, value in values.items() if value not in (None, "")}
    if not given & {"image", "text"}:
        raise entry.error("'image' and 'text' are both missing")
    lists = {key: entry.texts(key) for key in ("relevant", "exclude", "groups") if key in given}
    relevant = lists["relevant"] if "relevant" in lists else entry.texts("relevant")
    for key, found in {"relevant": relevant, **lists}.items():
        check_different(entry, key, found)
        if (
            known is not None
            and key == "relevant"
            and (missing := [id_ for id_ in found if id_ not in known])
        ):
            raise entry.error(f"{key!r} names {missing[0]!r}, which is not in the gallery")
    if wrong := sorted({*relevant} & {*lists.get("exclude", ())}):
        raise entry.error(f"{wrong[0]!r} is both in 'relevant' and in 'exclude'")
    return BenchmarkQuery(
        id_=entry.text("id") if "id" in given else f"line-{number}",
        text=entry.text("text").strip() if "text" in given else "",
        image=_picture(entry, folder) if "image" in given else None,
        relevant=relevant,
        excluded=lists.get("exclude", ()),
        groups=lists.get("groups", ()),
    )


def _picture(entry: Entry, folder: Path) -> str:
    image = entry.text("image")
    if is_url(image):
        return image
    found = folder / image
    try:
        load_image(found)
    except ImageLoadError as error:
        raise entry.error(f"'image' cannot be read: {error}") from error
    return str(found)
