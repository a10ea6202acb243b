"""For mkdocs: what pages link to outside of docs/ becomes a page of the site, and the links lead there.

On a code host a link like ``../examples/agent.py`` shows the file. On the site it shows a page with the file
in it. README.md, SECURITY.md and CHANGELOG.md are pages as they are; a notebook is a page with its outputs.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from notebook_page import notebook_to_markdown

REPOSITORY = Path(__file__).parent.parent.parent
NOTEBOOK = "examples/composed_image_retrieval.ipynb"
PAGES = {
    "README.md": "readme.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    NOTEBOOK: "notebook.md",
}
"""Files of the repository that have a page of their own name."""

_LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s#]+)")
_LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".txt": "text", ".yml": "yaml"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each linked file outside of docs/."""
    texts = [
        (posixpath.join("docs", file.src_uri), file.content_string) for file in files.documentation_pages()
    ]
    texts += [(name, (REPOSITORY / name).read_text(encoding="utf-8")) for name in PAGES]
    linked = {_in_repository(source, link[2]) for source, text in texts for link in _LINK.finditer(text)}
    for name in sorted(linked | set(PAGES)):
        if not name.startswith("docs/") and (REPOSITORY / name).is_file():
            inclusion = InclusionLevel.UNDEFINED if name in PAGES else InclusionLevel.NOT_IN_NAV
            page = File.generated(config, _page_of(name), content=_content(name), inclusion=inclusion)
            files.append(page)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links between files of the repository lead to pages of the site."""
    sources = {target: name for name, target in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def lead(link: re.Match[str]) -> str:
        target = _page_of(_in_repository(source, link[2]))
        if files.get_file_from_path(target) is None:
            return link[0]
        return link[1] + posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(lead, markdown)


def _in_repository(source: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _page_of(name: str) -> str:
    return name.removeprefix("docs/") if name.startswith("docs/") else PAGES.get(name, f"files/{name}.md")


def _content(name: str) -> str:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        return notebook_to_markdown(text)
    if name in PAGES:
        return text
    language = _LANGUAGES.get(posixpath.splitext(name)[1], "text")
    head = "---\nsearch:\n  exclude: true\n---\n"
    return (
        f"{head}# {posixpath.basename(name)}\n\n`{name}` in the repository:\n\n````{language}\n{text}\n````\n"
    )
