"""For mkdocs: roles that docstrings have for other tools, such as ``:class:`X```, are shown as plain code."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|meth|func|data|attr|mod|exc|const|obj):(<code>)~?")


def on_page_content(html: str, **_: Any) -> str:
    """Leave the roles out."""
    return _ROLE.sub(r"\1", html)
