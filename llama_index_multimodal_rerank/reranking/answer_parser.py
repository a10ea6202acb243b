"""What a model's answer declares as its ranking; prose is never read.

The grammar, in words. First it is decided which part of the text is the answer: drafts are left out
(:mod:`.answer_drafts`). In it a list counts only where it is declared. In this order of trust:

1. ``json``: the array under ``"ranking"`` in an object, however deep (also ``"rankings"``, ``"order"`` …,
   of numbers, strings, or objects that hold a ``"number"``; also as a string ``"4 > 2"``; also cut short,
   as by a token limit), or an answer or fenced block that is nothing but an array (:mod:`.answer_json`);
2. ``declared``: what follows ``Ranking:`` at the beginning of a line, on this line or below: labels with
   joints between them (:mod:`.answer_labels`), a column of labels, an enumeration, or a table;
3. ``line``: a line that is nothing but labels with joints between them, or several such lines one below the
   other. They are one list where a joint stands at their ends or beginnings, or where they share no label;
4. ``enumeration``: lines ``1. [4]``, ``2. Image 2`` …, numbered from 1, or a table with a column of places;
5. ``chain``: labels, not bare numbers, joined by ``>``, wherever they stand. Not what is left of a longer
   list.

A label alone is a list only after ``Ranking:`` or if it is the whole answer. A list whose line, or the line
before it, says that the worst comes first, and one that is joined by ``<``, is not read.

Lists of the most trusted kind there is must agree: one that lists some of the labels of the longest in the
same order does. If they do not, the answer is a bad one. Of contradicting declarations of one kind the last
counts, since models correct themselves forwards; where lists of other kinds, or of two kinds, contradict
each other, none counts. What follows ``Reason:`` at the beginning of a line, after a list, is the reason,
and no list in it is read: it may hold the words of a candidate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .answer_drafts import answers
from .answer_json import JsonValue, json_objects, read_json
from .answer_json_lists import JsonAnswer, json_answer
from .answer_labels import Entry
from .answer_lists import find_lists

MAX_ANSWER_CHARS = 32_768
"""How much of an answer is read, drafts not counted; what a runaway model writes after that is not."""

MAX_ENTRIES = 1_000
"""Entries of a list that are kept; a sheet has 25 candidates at most."""

AnswerKind = Literal["json", "declared", "line", "enumeration", "chain", "none"]

_FENCE = re.compile(r"```[a-z]*\n(.*?)```", re.I | re.S)
_REASON_LINE = re.compile(r"^[ \t>*_#`-]{0,8}reason[ \t*_`]{0,8}[:=]", re.I | re.M)
_REASON = re.compile(r"\breason(?:ing)?[ \t*_`]*[:=][\s*_`]*", re.I)


@dataclass(frozen=True)
class ParsedAnswer:
    """What :func:`parse_answer` found.

    Attributes:
        entries: the declared list as it stands, errors and doubles included; labels count from 1. Empty if
            there is none, or if there are several that contradict each other and none of them counts.
        kind: how the list was declared; ``"none"`` if there is none.
        lists: how many lists contradict each other, 1 if none does, 0 without a list.
        reason: the text given as reason, or None.
    """

    entries: tuple[Entry, ...]
    kind: AnswerKind
    lists: int
    reason: str | None = None


def parse_answer(text: str) -> ParsedAnswer:
    """Find the list that an answer declares as its ranking.

    Takes time linear in the length of the text and never raises, whatever the text.

    Args:
        text: the model's answer.
    """
    parsed = _NOTHING
    if _is_json(text):
        return _parse(_beginning(text))  # tags in its strings are no tags
    for answer in answers(text):
        parsed = _parse(_beginning(answer))
        if parsed.lists:
            break
    return parsed


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


_NOTHING = ParsedAnswer((), "none", 0)


def _beginning(text: str) -> str:
    if len(text) <= MAX_ANSWER_CHARS:
        return text
    return text[:MAX_ANSWER_CHARS].rpartition("\n")[0] or text[:MAX_ANSWER_CHARS]


def _parse(text: str) -> ParsedAnswer:
    heading = _REASON_LINE.search(text)
    if heading is not None:
        before = _parse_part(text[: heading.start()])
        if before.kind in ("json", "declared", "line"):
            return _with_reason(before, text[heading.end() :])
        after = _parse_part(text)
        if before.kind == "enumeration":
            if after.kind not in ("json", "declared") or after.entries == before.entries:
                return _with_reason(before, text[heading.end() :])
            return ParsedAnswer((), after.kind, 2)
    else:
        after = _parse_part(text)
    if after.reason is not None or after.kind == "json":
        return after
    words = _REASON.search(text)
    return after if words is None else _with_reason(after, text[words.end() :])


def _with_reason(parsed: ParsedAnswer, reason: str) -> ParsedAnswer:
    reason = reason.strip().lstrip("*_` \t\n").strip()
    return ParsedAnswer(parsed.entries, parsed.kind, parsed.lists, parsed.reason or reason or None)


def _parse_part(text: str) -> ParsedAnswer:
    declared, rest = _json(text)
    lists = find_lists(rest)
    if declared.doubtful:
        return _answer((), "json", 2, None)
    if declared.lists:
        entries, count = _agreed([*declared.lists, *lists.declared], last_counts=not lists.declared)
        return _answer(entries, "json", count, declared.reason)
    for kind, found in (
        ("declared", lists.declared),
        ("line", lists.line),
        ("enumeration", lists.enumeration),
        ("chain", lists.chain),
    ):
        if found:
            entries, count = _agreed(found, last_counts=kind == "declared")
            return _answer(entries, kind, count, None)  # type: ignore[arg-type]
    return _NOTHING


def _answer(entries: Sequence[Entry], kind: AnswerKind, count: int, reason: str | None) -> ParsedAnswer:
    return ParsedAnswer(tuple(entries[:MAX_ENTRIES]), kind, count, reason)


def _json(text: str) -> tuple[JsonAnswer, str]:
    """Return what the JSON in a text declares, and the text without what was read of it."""
    arrays: list[JsonValue] = []
    rest: list[str] = []
    position = 0
    for start, end in ((0, len(text)), *(fence.span(1) for fence in _FENCE.finditer(text))):
        block = text[start:end].strip()
        if block.startswith("[") and (value := read_json(block, 0)).sound and value.end == len(block):
            arrays.append(value)
            rest.append(text[position:start])
            position = end
    text = "\n".join([*rest, text[position:]])
    objects = json_objects(text)
    found = json_answer([*arrays, *objects])
    rest, position = [], 0
    for value in objects:
        if value.sound or value in found.read:
            rest.append(text[position : value.start])
            position = value.end
    return found, "\n".join([*rest, text[position:]])


def _agreed(lists: Iterable[Sequence[Entry]], *, last_counts: bool) -> tuple[Sequence[Entry], int]:
    """Return the list that counts, and how many contradict each other (1 if none does)."""
    # An example such as "[best] > … > [last]" is no list if there is a real one.
    found = list(lists)
    found = [each for each in found if any(isinstance(entry, int) for entry in each)] or found
    longest = max(range(len(found)), key=lambda number: (len(found[number]), number))
    others = [number for number, each in enumerate(found) if not _is_part(each, found[longest])]
    if not others:
        return found[longest], 1
    count = 1 + len({tuple(found[number]) for number in others})
    return (found[max(longest, *others)] if last_counts else ()), count


def _is_part(entries: Sequence[Entry], whole: Sequence[Entry]) -> bool:
    """Tell whether all entries stand in ``whole``, in the same order."""
    following = iter(whole)
    return all(entry in following for entry in entries)
