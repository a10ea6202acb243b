"""The code of a Markdown page: its blocks, and the commands among its words.

A block that tests do not execute says why, in a comment just above it::

    <!-- not executed: vLLM needs a GPU -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).parent.parent.parent
SHELL = ("console", "bash", "sh")
_REASON = re.compile(r"<!--\s*not executed:\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file.
        line: its first line of code, from 1.
        language: what stands behind the fence.
        code: the lines between the fences.
        reason: why it is not executed; None where it is.
    """

    page: Path
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def place(self) -> str:
        """File and line, as editors take them."""
        return f"{self.page}:{self.line}"


def all_pages() -> list[Path]:
    """The Markdown files of the repository's root and of ``docs/``."""
    return sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def read_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in their order."""
    tokens = _tokens(page)
    found = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type != "fence":
            continue
        comment = (
            _REASON.search(before.content) if before is not None and before.type == "html_block" else None
        )
        assert token.map is not None
        line = token.map[0] + 2
        found.append(Block(page, line, token.info.strip(), token.content, comment and comment[1]))
    return found


def read_inline_code(page: Path) -> list[str]:
    """Return what stands between backticks in the text of a page, each on one line."""
    return [
        child.content
        for token in _tokens(page)
        for child in token.children or ()
        if child.type == "code_inline"
    ]


def read_links(page: Path) -> list[str]:
    """Return the targets of the links and pictures of a page."""
    return [
        str(child.attrs.get("href") or child.attrs.get("src"))
        for token in _tokens(page)
        for child in token.children or ()
        if child.type in ("link_open", "image")
    ]


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
