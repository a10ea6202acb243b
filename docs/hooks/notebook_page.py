"""A notebook as Markdown: texts, code, and what the code printed and drew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def notebook_to_markdown(text: str) -> str:
    """Return the page of a notebook.

    Args:
        text: the notebook's file, with its outputs.
    """
    parts: list[str] = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                parts += _shown(output)
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> Iterator[str]:
    if output["output_type"] == "stream":
        yield f"```text\n{''.join(output['text']).rstrip()}\n```"
        return
    data = output.get("data", {})
    for kind in ("image/jpeg", "image/png"):
        if kind in data:
            yield f"![What the cell above draws](data:{kind};base64,{''.join(data[kind]).strip()})"
            return
    if "text/markdown" in data:
        yield "".join(data["text/markdown"])
    elif "text/plain" in data:
        yield f"```text\n{''.join(data['text/plain'])}\n```"
