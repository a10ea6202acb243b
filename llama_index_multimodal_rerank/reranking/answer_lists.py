"""Lists that stand in a text: declared ones, lines and columns, enumerations, tables, chains.

The grammar is in :mod:`.answer_parser`. Each character is looked at a fixed number of times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .answer_labels import WORDS, normalized, to_entry
from .answer_runs import Entries, Run, ends_line, numbered, read_line, read_run
from .answer_tables import find_tables

_DECLARATION = re.compile(
    r"[># -]{0,6}(?:(?:so|thus|therefore|here(?:'s| is| are)|this is),? )?(?:(?:the|my|your|a) )?"
    r"(?:(?:final|overall|complete|full|correct|updated|revised) ){0,2}"
    r"(?:rank(?:ings?|ed)(?: (?:list|order|candidates|images))?|rank order|order(?:ing)?|answer)"
    r"(?: is| of (?:the )?\w+| \([^()\n]{0,80}\))?(?:,? (?:from )?best (?:to worst|first))? ?[:=] ?",
    re.I,
)
_REVERSED = re.compile(
    r"\b(?:worst|least|lowest|weakest|bottom)(?:[ -][a-z]+){0,2}[ -](?:to|first)\b"
    r"|\bascending\b|\breversed?\b",
    re.I,
)
_CHAIN_LABEL = rf"(?:\[[^\[\]\n]{{1,40}}\]|\b{WORDS} ?#?\d{{1,9}}(?!\w|\.\d))"
_CHAIN = re.compile(rf"{_CHAIN_LABEL}(?:[ \n]?(?:-{{1,3}}>|[>=~])+[ \n]?{_CHAIN_LABEL})+", re.I)
_CHAIN_ENTRY = re.compile(_CHAIN_LABEL, re.I)


@dataclass(frozen=True)
class TextLists:
    """The lists of a text, by how they stand there; each in the order of the text."""

    declared: list[Entries]
    line: list[Entries]
    enumeration: list[Entries]
    chain: list[Entries]


def find_lists(text: str) -> TextLists:
    """Find every list of a text, which need not be normalised."""
    lines = [line for line in normalized(text).split("\n") if line]
    tables, in_table = find_tables(lines)
    runs = [None if number in in_table else read_line(line) for number, line in enumerate(lines)]
    if not all(runs):  # then a number alone on a line may be anything
        prose = [None if run is not None and run.bare and run.labels == 1 else run for run in runs]
    else:
        prose = runs
    declared = _declared(lines, runs, tables)
    if declared:
        return TextLists(declared, [], [], [])
    return TextLists(
        [],
        _blocks(lines, prose),
        [*tables.values(), *_enumerations(lines, in_table)],
        _chains("\n".join(lines)),
    )


def read_string(text: str) -> Entries:
    """Read a text that is a list and nothing else, such as ``4 > 2 > 1``; empty if it is not."""
    text = normalized(text)
    run = read_run(text, 0, blanks=True)
    return run.entries if run is not None and ends_line(text, run) else []


# -- lines and columns ------------------------------------------------------------------------


def _blocks(lines: Sequence[str], runs: Sequence[Run | None]) -> list[Entries]:
    found: list[Entries] = []
    number = 0
    while number < len(runs):
        block = _block(runs, number)
        if block:
            lists = _merged(block, whole=len(block) == len(lines))
            found += [] if _is_reversed(lines, number) else lists
        number += len(block) or 1
    return found


def _block(runs: Sequence[Run | None], start: int) -> list[Run]:
    """Return the lines from one on that follow each other and are lists."""
    block: list[Run] = []
    while start + len(block) < len(runs) and (run := runs[start + len(block)]) is not None:
        block.append(run)
    return block


def _merged(block: Sequence[Run], *, whole: bool) -> list[Entries]:
    """Put the lines of a block together.

    Lines with a joint between them are one list. So are lines that share no entry, and columns of single
    labels. Else every line of several labels is a list, and single labels are no lists, but what an
    explanation begins with. A label alone is a list only if there is nothing else (``whole``).
    """
    lists: list[Entries] = []
    previous: Run | None = None
    for run in block:
        # A quoted list has ">" before each of its lines.
        if previous is not None and (previous.open_end or (run.open_start and not previous.open_start)):
            lists[-1] = lists[-1] + run.entries
        else:
            lists.append(list(run.entries))
        previous = run
    together = [entry for entries in lists for entry in entries]
    if len(set(together)) == len(together) or all(len(entries) == 1 for entries in lists):
        lists = [together]
    return [entries for entries in lists if len(entries) > 1 or whole]


# -- lists after "Ranking:" -------------------------------------------------------------------


def _declared(lines: Sequence[str], runs: Sequence[Run | None], tables: dict[int, Entries]) -> list[Entries]:
    found: list[Entries] = []
    for number, line in enumerate(lines):
        declaration = _DECLARATION.match(line)
        if declaration is None or _REVERSED.search(line):
            continue
        rest = line[declaration.end() :]
        if rest and numbered(rest, 1) is not None:
            entries = _enumeration(lines, number + 1, first=rest)
            entries = entries if len(entries) > 1 else _after_declaration(rest, runs, number + 1)
        elif rest:
            entries = _after_declaration(rest, runs, number + 1)
        elif block := _block(runs, number + 1):
            entries = _merged(block, whole=True)[0]
        elif number + 1 in tables:
            entries = tables[number + 1]
        else:
            entries = _enumeration(lines, number + 1)
        if entries:
            found.append(entries)
    return found


def _after_declaration(rest: str, runs: Sequence[Run | None], following: int) -> Entries:
    """Read a list that begins on the line of its declaration, in ``rest`` of it."""
    run = read_run(rest, 0, blanks=True)
    if run is None:
        return []
    if run.open_end or ends_line(rest, run):
        merged = _merged([run, *_block(runs, following)], whole=True)
        return merged[0]
    # Prose may follow a list on its line, but "3 chairs" is none.
    return run.entries if run.labels > 1 and not run.blanks else []


# -- enumerations -----------------------------------------------------------------------------


def _enumeration(lines: Sequence[str], start: int, *, first: str | None = None) -> Entries:
    """Read the enumeration that begins with a line, or with ``first`` before it, up to a declaration."""
    entries = [] if first is None else list(numbered(first, 1) or [])
    items = int(first is not None)
    for number in range(start, len(lines)):
        following = numbered(lines[number], items + 1)
        if following is not None:
            entries += following
            items += 1
        elif not items or _DECLARATION.match(lines[number]) or numbered(lines[number], 1):
            break
    return entries


def _enumerations(lines: Sequence[str], in_table: set[int]) -> list[Entries]:
    """Read lines ``1. [4]``, ``2. Image 2`` …, numbered from 1; other lines may stand between them."""
    found: list[Entries] = []
    items = 0
    for number, line in enumerate(lines):
        if number in in_table:
            continue
        if (first := numbered(line, 1)) is not None:
            items = 0 if _is_reversed(lines, number) else 1
            found += [list(first)] if items else []
        elif items and (entries := numbered(line, items + 1)) is not None:
            found[-1] += entries
            items += 1
    return [entries for entries in found if len(entries) > 1]


# -- chains in prose --------------------------------------------------------------------------


def _chains(text: str) -> list[Entries]:
    found: list[Entries] = []
    for chain in _CHAIN.finditer(text):
        before = text[max(0, chain.start() - 120) : chain.start()].rstrip()
        after = text[chain.end() : chain.end() + 2].lstrip()
        # What a joint precedes is the end of a list whose beginning was not understood; a quotation is not.
        is_rest = before.endswith(("=", "~", "<", ">")) and before.rpartition("\n")[2] != ">"
        if (
            ">" in chain.group()
            and not is_rest
            and not after.startswith("<")
            and not _REVERSED.search(before)
        ):
            found.append([to_entry(label) for label in _CHAIN_ENTRY.findall(chain.group())])
    return found


def _is_reversed(lines: Sequence[str], number: int) -> bool:
    """Tell whether the line before a list says that the worst comes first."""
    return number > 0 and _REVERSED.search(lines[number - 1][-200:]) is not None
