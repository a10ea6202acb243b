"""Markdown tables that give each candidate a place."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .answer_labels import WORDS, Entry, to_entry

_SEPARATOR = re.compile(r"[|: -]+")
_PLACE = re.compile(r"(?:final |overall )?(?:rank(?:ing)?|place|position|pos\.?)", re.I)
_COUNT = re.compile(r"#|no\.?|order", re.I)
_LABEL = re.compile(rf"{WORDS}(?: ?(?:number|no\.?|label|#|id))?|label|id", re.I)


def find_tables(lines: Sequence[str]) -> tuple[dict[int, list[Entry]], set[int]]:
    """Read the tables that have a column of places from 1 and one of labels.

    Args:
        lines: normalised lines, none of them empty.

    Returns:
        The labels of each such table by their places, keyed by the number of the table's first line; and the
        numbers of all lines that belong to tables of any kind.
    """
    found: dict[int, list[Entry]] = {}
    inside: set[int] = set()
    for number in range(1, len(lines)):
        line = lines[number]
        if number in inside or "|" not in line or "|" not in lines[number - 1]:
            continue
        if "-" not in line or _SEPARATOR.fullmatch(line) is None:
            continue
        end = number + 1
        while end < len(lines) and "|" in lines[end]:
            end += 1
        inside.update(range(number - 1, end))
        entries = _by_place(_cells(lines[number - 1]), [_cells(row) for row in lines[number + 1 : end]])
        if entries:
            found[number - 1] = entries
    return found, inside


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def _by_place(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Entry]:
    places = _column(header, _PLACE)
    if places is None:
        places = _column(header, _COUNT)
    labels = next((i for i, cell in enumerate(header) if i != places and _LABEL.fullmatch(cell)), None)
    if places is None or labels is None:
        return []
    by_place: dict[Entry, Entry] = {}
    for row in rows:
        if len(row) <= max(places, labels):
            return []
        by_place[to_entry(row[places].rstrip("."))] = to_entry(row[labels])
    if sorted(map(str, by_place)) != sorted(str(place) for place in range(1, len(rows) + 1)):
        return []
    return [by_place[place] for place in range(1, len(rows) + 1)]


def _column(header: Sequence[str], names: re.Pattern[str]) -> int | None:
    return next((number for number, cell in enumerate(header) if names.fullmatch(cell)), None)
