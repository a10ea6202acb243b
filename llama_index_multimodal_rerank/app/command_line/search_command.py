"""``multimodal-rerank search``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llama_index.core.vector_stores.types import MetadataFilter

from ...images.access import DEFAULT_ACCESS
from ...logs import one_line
from ..collections import Collection
from ..filters import parse_filters
from ..search import Hit, SearchRequest, SearchResult, search
from .opening import opened
from .output import collection_json, print_json, print_lines, seconds_line, table, to_json
from .parser import check_reranking


def run(options: argparse.Namespace) -> int:
    """Search, and print what was found."""
    request = _request(options)  # what is wrong with it is said before anything is opened or indexed
    collection = opened(options)
    try:
        result = search(collection, request)
        note = None if result.hits else _why_nothing(collection, request)
    finally:
        collection.close()
    sheets = _save_sheets(options.save_sheets, result)
    if options.json:
        print_json(_as_json(options, collection, result, sheets, note))
    else:
        print_lines(*_as_lines(result), *([note] if note else []), *(f"Sheet: {path}" for path in sheets))
    return 0


def _request(options: argparse.Namespace) -> SearchRequest:
    if options.image is None and not options.text.strip():
        raise ValueError("there is nothing to look for: give --image, --text, or both")
    check_reranking(options)
    sheets = options.save_sheets
    if sheets is not None and sheets.exists() and not sheets.is_dir():
        raise NotADirectoryError(f"--save-sheets needs a folder, got the file {str(sheets)!r}")
    return SearchRequest(
        text=options.text,
        image=None if options.image is None else DEFAULT_ACCESS.check(options.image.expanduser()).data,
        top_k=options.top_k,
        strategy=options.rerank,
        filters=parse_filters(options.filter),
        keep_sheets=options.save_sheets is not None,
    )


def _why_nothing(collection: Collection, request: SearchRequest) -> str:
    known = [field.key for field in collection.fields()]
    if not known:
        return f"Nothing was found: the collection {collection.source.name!r} is empty."
    for one in request.filters.filters if request.filters is not None else ():
        if isinstance(one, MetadataFilter) and one.key not in known:
            return f"Nothing was found: no picture has {one.key!r}; there are: {', '.join(known)}."
    return "Nothing was found: no picture meets the filters."


def _save_sheets(folder: Path | None, result: SearchResult) -> list[Path]:
    if folder is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"sheet-{number}.png" for number in range(1, len(result.sheets) + 1)]
    for path, sheet in zip(paths, result.sheets, strict=True):
        path.write_bytes(sheet)
    return paths


def _as_lines(result: SearchResult) -> list[str]:
    titled = any(hit.title for hit in result.hits)
    if result.reranked is None:
        names = ["rank", "score", "file", *(["title"] if titled else [])]
        rows = [[hit.rank, hit.score, hit.file, *([hit.title] if titled else [])] for hit in result.retrieved]
        lines = table(names, rows) if rows else []
        return [*lines, seconds_line(result.seconds)]
    retrieved = {hit.id: hit.score for hit in result.retrieved}
    names = ["rank", "was", "score", "retrieved", "file", *(["title"] if titled else [])]
    rows = [
        [hit.rank, hit.was, hit.score, retrieved[hit.id], hit.file, *([hit.title] if titled else [])]
        for hit in result.reranked
    ]
    said = {
        "The reranker saw in the query:": result.caption,
        "Its reason:": result.reason,
        "Audit:": result.audit,
    }
    return [
        *table(names, rows),
        *(f"{what} {one_line(text, 1000)}" for what, text in said.items() if text),
        seconds_line(result.seconds),
    ]


def _as_json(
    options: argparse.Namespace,
    collection: Collection,
    result: SearchResult,
    sheets: list[Path],
    note: str | None,
) -> dict[str, Any]:
    retrieved = {hit.id: hit.score for hit in result.retrieved}
    reranked = result.reranked is not None
    return {
        "collection": collection_json(collection),
        "query": {
            "text": result.request.text,
            "image": None if options.image is None else str(options.image),
            "filters": list(options.filter),
            "top_k": options.top_k,
        },
        "rerank": options.rerank,
        "reranker": collection.models.reranker_name if reranked else None,
        "results": [_hit_json(hit, retrieved[hit.id]) for hit in result.hits],
        "caption": result.caption,
        "reason": result.reason,
        "audit": {"word": result.audit_word, "text": result.audit} if reranked else None,
        "sheets": [str(path) for path in sheets],
        "seconds": {stage: round(value, 3) for stage, value in result.seconds.items()},
        "note": note,
    }


def _hit_json(hit: Hit, retrieval_score: float | None) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "was": hit.was,
        "id": hit.id,
        "path": getattr(hit.node, "image_path", None),
        "title": hit.title,
        "score": to_json(hit.score),
        "retrieval_score": to_json(retrieval_score),
        "unreadable": hit.unreadable,
        "metadata": {key: to_json(value) for key, value in hit.metadata.items()},
    }
