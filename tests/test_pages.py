"""Every page of Markdown: its programs run, its commands can be typed, its data are read, its links lead on.

A block that is not executed says why, see ``support/markdown_blocks.py``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.documented_commands import CommandChecker, CommandError, is_ours, read_commands
from support.markdown_blocks import (
    REPOSITORY,
    SHELL,
    Block,
    all_pages,
    read_blocks,
    read_inline_code,
    read_links,
)
from support.page_programs import lay_out_hub, run_programs, use_hub

PAGES = {str(page.relative_to(REPOSITORY)): page for page in all_pages()}
OUTPUT = "text"
"""Language of a block that is no code: what is printed, a tree of files."""


def executed(page: str, *languages: str) -> list[Block]:
    blocks = read_blocks(PAGES[page])
    return [block for block in blocks if block.language in languages and block.reason is None]


def with_blocks(*languages: str) -> list[str]:
    return [page for page in PAGES if executed(page, *languages)]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    lay_out_hub(folder)
    return folder


def readme(printed: str, names: dict[str, Any]) -> None:
    hits = re.findall(r"^(0\.\d{3}) (\S+) ?(.*)$", printed, re.MULTILINE)
    assert len({path for _score, path, _reason in hits}) == 3
    assert [score for score, *_ in hits] == sorted((score for score, *_ in hits), reverse=True)
    assert [bool(reason) for *_, reason in hits] == [True, False, False]


def agents(printed: str, names: dict[str, Any]) -> None:
    found = json.loads(printed.splitlines()[0])
    assert [each["rank"] for each in found["results"]] == [1, 2]
    assert found["reranking"] == "clean"
    assert re.search(r"^1\. A [\w -]+ \(0\.\d{3}\)$", printed, re.MULTILINE)

    async def ask() -> str:
        return str(await names["SearchImages"]().run(text="a shoe with this", image_path="leopard.png"))

    assert len(json.loads(asyncio.run(ask()))["results"]) > 2


def evaluation(printed: str, names: dict[str, Any]) -> None:
    assert "| composed | reranked | 1 |" in printed
    assert "| composed, text only | retrieved | 1 |" in printed
    assert "| benchmark | CIRR |" in printed


PROMISED: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "README.md": readme,
    "docs/agents.md": agents,
    "docs/evaluation.md": evaluation,
}
"""What a page says that its programs print or make. More is in tests of the page's subject."""

BARS = {"README.md": ("Loading images: 100%", "Embedding: 100%")}
"""How far programs say that they are."""


@pytest.mark.parametrize("page", with_blocks("python"))
def test_programs_run(
    page: str,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_hub(hub, monkeypatch)
    names = run_programs(page, executed(page, "python"), tmp_path, monkeypatch)
    shown = capsys.readouterr()
    if page in PROMISED:
        PROMISED[page](shown.out, names)
    assert all(bar in shown.err for bar in BARS.get(page, ()))


@pytest.mark.parametrize("page", with_blocks("json"))
def test_data_can_be_read(page: str) -> None:
    for block in executed(page, "json"):
        one_a_line = len(re.findall(r"^{.*}$", block.code, re.MULTILINE)) > 1
        for text in block.code.splitlines() if one_a_line else [block.code]:
            assert isinstance(json.loads(text), dict), block.place


def commands_of(page: str) -> list[tuple[str, list[str]]]:
    """Commands of a page's blocks, and those of ours within its sentences, with where they stand."""
    found = [
        (block.place, command) for block in executed(page, *SHELL) for command in read_commands(block.code)
    ]
    for code in read_inline_code(PAGES[page]):
        if is_ours(code):
            found += [(page, command) for command in read_commands(code.partition("…")[0])]
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_commands_can_be_typed(
    page: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    checker = CommandChecker(pytestconfig, monkeypatch)
    for place, command in commands_of(page):
        checker.check(command, place)


@pytest.mark.parametrize("page", PAGES)
def test_other_blocks_say_why_they_are_not_executed(page: str) -> None:
    known = ("python", "json", OUTPUT, *SHELL)
    for block in read_blocks(PAGES[page]):
        if block.reason is None:
            assert block.language in known, f"{block.place}: {block.language or 'no language'}: say why"
        else:
            assert len(block.reason.split()) > 2, f"{block.place}: {block.reason!r} is no reason"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    for link in read_links(PAGES[page]):
        target = link.partition("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            assert (PAGES[page].parent / target).exists(), f"{page}: {link}"


# -- what these tests would not let through ------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "fault"),
    {
        "python examples/quickstart.py --imagess photos/": "--imagess photos/ ends with 2",
        "python examples/quickstart.py --strategy best": "--strategy best ends with 2",
        "python examples/no_such.py": "there is no file examples/no_such.py",
        "python -m benchmarks.no_such": "there is no module benchmarks.no_such",
        ".venv/bin/pytest --no-such": "pytest has no option --no-such",
        "pytest -m 'slow and swift'": "there is no marker swift",
        'pip install ".[no-such,test]"': "there is no extra no-such",
        ".ci/no-such oldest": "there is no file .ci/no-such",
        "curl http://localhost": "curl is none of ours: say why it is not executed",
    }.items(),
)
def test_a_command_that_cannot_be_typed(
    command: str, fault: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((*words,),) = read_commands(command)
    with pytest.raises(CommandError, match=re.escape(fault)):
        CommandChecker(pytestconfig, monkeypatch).check(words)


def test_blocks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "A\n\n```python\nx = 1\n```\n\n<!-- not executed: needs a GPU -->\n```bash\nvllm serve\n```\n\n"
        "- in a list\n\n  ```python\n  x += 1\n  ```\n"
    )
    first, second, third = read_blocks(page)
    assert first == Block(page, 4, "python", "x = 1\n", None)
    assert second == Block(page, 9, "bash", "vllm serve\n", "needs a GPU")
    assert third == Block(page, 15, "python", "x += 1\n", None)


def test_programs_of_a_page_share_names_and_tracebacks_name_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\ny = x + 1\nraise ValueError(y)\n```\n")
    with pytest.raises(ValueError, match="2") as raised:
        run_programs("page.md", read_blocks(page), tmp_path, monkeypatch)
    assert raised.traceback[-1].lineno + 1 == 7
    assert Path(raised.traceback[-1].path) == page
