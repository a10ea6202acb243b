"""A report of retrieved and reranked lists as one HTML file, pictures included."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from _results import QueryResult, columns
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import ImageOps

from llama_index_multimodal_rerank import load_image
from llama_index_multimodal_rerank.app.audit_words import audit_in_words

SIDE = 176


def write_report(
    path: Path, results: Sequence[QueryResult], described: Mapping[str, str], models: Mapping[str, str]
) -> Path:
    """Write the report; it needs no other file and no network to be looked at.

    Args:
        path: of the HTML file.
        results: the queries with their lists.
        described: what files show, by their names.
        models: which models did what, such as ``{"Retrieved by": "VisualizedBGEEmbedding, demo"}``.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and answers of models stay text, whatever they hold
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thumbnail"] = thumbnail
    environment.globals["columns"] = columns
    title = "Retrieved and reranked" if any(each.reranked for each in results) else "Retrieved"
    queries = []
    for result in results:
        audit = result.said("rerank_audit")
        queries.append(
            {
                "text": result.query.query_str,
                "image_path": result.query.image_path,
                "lists": result.lists(described),
                "caption": result.said("rerank_query_caption"),
                "reason": result.said("rerank_reason"),
                "audit": audit_in_words(audit) if isinstance(audit, Mapping) else None,
            }
        )
    html = environment.get_template("_report.html.jinja").render(queries=queries, models=models, title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8", errors="backslashreplace")
    return path


def thumbnail(image_path: str) -> str:
    """Return a small copy of a picture as a data URI."""
    small = io.BytesIO()
    picture = ImageOps.contain(load_image(image_path).convert("RGB"), (2 * SIDE, 2 * SIDE))
    picture.save(small, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"
