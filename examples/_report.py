"""A report of retrieved and reranked lists as one HTML file, pictures included."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

from _common import QueryResult, file_name
from PIL import ImageOps

from llama_index_multimodal_rerank import load_image

SIDE = 112

STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --faint: #57606a; --up: #1a7f37; --down: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --faint: #9198a1; --up: #3fb950; --down: #d29922; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
section { border-top: 1px solid var(--line); padding: 1rem 0 2rem; }
.query { display: flex; gap: 1rem; align-items: center; }
.query img { border: 4px solid #a00; border-radius: 6px; }
.hits { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 1rem; padding: 0; }
.hits li { list-style: none; font-size: 13px; }
img { display: block; border-radius: 6px; width: 112px; height: 112px; object-fit: contain; }
.faint, small { color: var(--faint); } .up { color: var(--up); } .down { color: var(--down); }
pre { overflow-x: auto; font-size: 12px; }
"""


def write_report(path: Path, asked: Sequence[QueryResult], described: dict[str, str]) -> Path:
    """Write the report; it needs no other file and no network to be looked at."""
    sections = "\n".join(_section(each, described) for each in asked)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Retrieved and reranked</title><style>{STYLE}</style></head>
<body><h1>Retrieved and reranked</h1>
{sections}
</body></html>
""",
        encoding="utf-8",
    )
    return path


def _section(asked: QueryResult, described: dict[str, str]) -> str:
    query = asked.query
    picture = _img(query.image_path, "picture of the query") if query.image_path else ""
    hits = "\n".join(
        _hit(hit, rank, place, described)
        for rank, (hit, place) in enumerate(
            zip(asked.after or asked.before, asked.places_before, strict=True), start=1
        )
    )
    words = html.escape(query.query_str) or "(no words)"
    said, audit = _reranked(asked) if asked.after else ("", "")
    return f"""<section><div class="query">{picture}<div><h2>{words}</h2>{said}</div></div>
<ol class="hits">{hits}</ol>{audit}</section>"""


def _reranked(asked: QueryResult) -> tuple[str, str]:
    """Return what the reranker said, and the audit of its answer."""
    best = asked.after[0].node.metadata
    order = " ".join(str(place) for place in asked.places_before)
    said = f"""<p>The reranker saw in the query: {html.escape(str(best.get("rerank_query_caption")))}<br>
Its reason: {html.escape(str(best.get("rerank_reason")))}<br>
<span class="faint">Places before, in the new order: {order}</span></p>"""
    audit = html.escape(json.dumps(best.get("rerank_audit"), indent=1))
    return said, f"<details><summary>Audit of the answer</summary><pre>{audit}</pre></details>"


def _hit(hit, rank: int, place: int, described: dict[str, str]) -> str:  # type: ignore[no-untyped-def]
    name = described.get(file_name(hit), file_name(hit))
    moved = "up" if place > rank else "down" if place < rank else "faint"
    arrow = {"up": "↑", "down": "↓", "faint": "="}[moved]
    retrieval = hit.node.metadata.get("retrieval_score")
    reranked = ""
    if isinstance(retrieval, float):
        reranked = f'<br><span class="{moved}">{arrow} was {place}, at {retrieval:.3f}</span>'
    return f"""<li>{_img(hit.node.image_path, name)}<b>{rank}.</b> {html.escape(name)}
{reranked}<br><small>score {hit.score:.3f}</small></li>"""


def _img(image_path: str, alt: str) -> str:
    thumbnail = io.BytesIO()
    ImageOps.contain(load_image(image_path).convert("RGB"), (2 * SIDE, 2 * SIDE)).save(
        thumbnail, "JPEG", quality=85
    )
    data = base64.b64encode(thumbnail.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(alt, quote=True)}">'
