"""Files for the test servers of CIRR and CIRCO, checked against their rules before they are written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import circo, cirr
from .query_results import RETRIEVED, RankedList
from .results import Evaluation

CIRR_DEPTH, CIRR_SUBSET_DEPTH, CIRCO_DEPTH = 50, 3, 50


def write_cirr_submission(
    evaluation: Evaluation, folder: str | os.PathLike[str], *, ranking: str = RETRIEVED
) -> tuple[Path, Path]:
    """Write the two files for CIRR's server: 50 names of the whole gallery, and the 3 best of the subset.

    Keys are the queries' pair ids, and ``"version": "rc2"`` and ``"metric"``, ``"recall"`` or
    ``"recall_subset"``. Of a gallery that has fewer pictures all are written.

    Args:
        evaluation: of ``load_cirr(…)``, run to its end.
        folder: where ``recall.json`` and ``recall_subset.json`` are written; made if it is missing.
        ranking: which list: ``"retrieved"``, or a reranker's, ``"reranked"``.

    Returns:
        The two files.

    Raises:
        ValueError: the evaluation is of another benchmark or was interrupted, has no such list, or a list is
            too short.
    """
    lists = _checked(evaluation, cirr.NAME, ranking)
    size = (evaluation.protocol.gallery_size or 0) - 1  # without the reference
    head = {"version": cirr.VERSION}
    whole: dict[str, Any] = {**head, "metric": "recall"}
    subset: dict[str, Any] = {**head, "metric": "recall_subset"}
    for id_, ranked in lists.items():
        whole[id_] = _first(ranked.ids, min(CIRR_DEPTH, size), id_)
        subset[id_] = _first(ranked.subset_ids, CIRR_SUBSET_DEPTH, id_)
    folder = Path(folder)
    return _write(folder / "recall.json", whole), _write(folder / "recall_subset.json", subset)


def write_circo_submission(
    evaluation: Evaluation, path: str | os.PathLike[str], *, ranking: str = RETRIEVED
) -> Path:
    """Write the file for CIRCO's server: 50 image ids, as numbers, under each query's id, and nothing else.

    Args:
        evaluation: of ``load_circo(…)``, run to its end.
        path: the file; folders above it are made.
        ranking: which list: ``"retrieved"``, or a reranker's, ``"reranked"``.

    Returns:
        The file.

    Raises:
        ValueError: the evaluation is of another benchmark or was interrupted, has no such list, a list is
            too short, or the queries' ids are not 0, 1, 2 …
    """
    lists = _checked(evaluation, circo.NAME, ranking)
    if sorted(map(int, lists)) != list(range(len(lists))):
        raise ValueError(
            f"CIRCO's server wants the queries 0 to {len(lists) - 1}, all of a split; ask them all"
        )
    depth = min(CIRCO_DEPTH, evaluation.protocol.gallery_size or 0)
    content = {id_: [int(each) for each in _first(ranked.ids, depth, id_)] for id_, ranked in lists.items()}
    return _write(Path(path), content)


def _checked(evaluation: Evaluation, name: str, ranking: str) -> dict[str, RankedList]:
    protocol = evaluation.protocol
    if protocol.benchmark != name:
        raise ValueError(f"this is the file for {name}'s server; the evaluation is of {protocol.benchmark}")
    if not protocol.complete:
        raise ValueError(
            f"the evaluation was interrupted after {protocol.queries} queries; the server wants all of them"
        )
    return evaluation.rankings(ranking)


def _first(ids: tuple[str, ...], count: int, query_id: str) -> list[str]:
    if len(ids) < count:
        raise ValueError(f"query {query_id!r}: {count} pictures are to be handed in, the list has {len(ids)}")
    return list(ids[:count])


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
