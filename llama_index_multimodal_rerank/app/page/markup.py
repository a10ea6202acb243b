"""The page's HTML: templates that escape whatever is put into them."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def render(template: str, **values: Any) -> str:
    """Return a template of ``templates/`` with values put into it, escaped.

    File names, captions and what models write are other people's words: none of it becomes markup.
    """
    return _templates().get_template(f"{template}.html").render(**values)
