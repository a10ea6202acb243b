"""For mkdocstrings: docstrings as this package writes them.

Settings of pydantic classes are described in ``Field(description=...)``, examples stand under ``Example:``,
and some docstrings have roles, such as ``:class:`X```, that Markdown does not know.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|meth|func|data|attr|mod|exc|const|obj):`~?")


class Docstrings(griffe.Extension):
    """Reads descriptions of fields, and writes docstrings as Google's style has them."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take a field's description for its docstring, and its default for its value."""
        if not str(attr.value).startswith("Field("):
            return
        call = ast.parse(str(attr.value), mode="eval").body
        settings = {each.arg: each.value for each in call.keywords} if isinstance(call, ast.Call) else {}
        if attr.docstring is None and "description" in settings:
            text = str(ast.literal_eval(settings["description"]))
            attr.docstring = griffe.Docstring(text, parent=attr)
        attr.value = ast.unparse(settings["default"]) if "default" in settings else None

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite all docstrings."""
        _rewrite(pkg)


def _rewrite(parent: griffe.Object) -> None:
    for member in parent.members.values():
        if isinstance(member, griffe.Alias):
            continue
        if member.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", member.docstring.value, flags=re.MULTILINE)
            member.docstring.value = _ROLE.sub("`", text)
        _rewrite(member)
