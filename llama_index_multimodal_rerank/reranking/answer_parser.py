"""What a model's answer declares as its ranking; prose is never read.

A list counts only where it is declared. In this order of trust:

1. ``json``: an object with a ``"ranking"`` array (also cut short, as by a token limit), or an answer
   that is nothing but an array;
2. ``declared``: a list that follows ``Ranking:``;
3. ``line``: a line that is nothing but a list;
4. ``enumeration``: lines ``1. [4]``, ``2. [2]`` …, numbered from 1;
5. ``chain``: bracketed labels joined by ``>``, wherever they stand.

Of several lists of the same kind the last counts: models correct themselves forwards. What stands
between ``<think>`` and ``</think>`` is no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

MAX_ANSWER_CHARS = 32_768
"""How much of an answer is read; what a runaway model writes after that is not."""

Entry = int | str
"""One entry of a list: a whole number, or the text of what is none."""

AnswerKind = Literal["json", "declared", "line", "enumeration", "chain", "none"]

_ENTRY = re.compile(r"\[[^\[\]\n]{0,400}\]|[+-]?\d+(?:\.\d+)?(?![.%]*\w)")
_JOINT = re.compile(r"[ \t]*(?:>+|≻|→|->|,|;|\|)[ \t]*")
_INSIDE_JOINT = re.compile(r"\s*(?:>+|≻|→|->|,|;|\|)\s*")
_LABEL = re.compile(r"(?:(?:image|picture|photo|candidate|cell|item|number|no\.?)\s*)?#?\s*(\d{1,9})\Z", re.I)
_DECLARATION = re.compile(
    r"^[ \t>*_#`-]*(?:final[ \t]+)?rank(?:ing|ed)(?:[ \t]+order)?[ \t*_`]*[:=][\s*_`]*", re.I | re.M
)
_LINE_START = re.compile(r"^[ \t*_`]*(?=[\[\d+-])", re.M)
_LINE_END = re.compile(r"[ \t*_`]*\.?[ \t*_`]*(?:$|\n)")
_ENUMERATED = re.compile(r"^[ \t]*(\d{1,3})[.)][ \t*_`]*(\[[^\[\]\n]{1,40}\])", re.M)
_CHAIN = re.compile(r"\[[^\[\]\n]{1,40}\](?:\s*[>≻]\s*\[[^\[\]\n]{1,40}\])+")
_OPEN_ARRAY = re.compile(r"""["']ranking["']\s*:\s*\[([^\[\]{}]*)""", re.I)
_FENCE = re.compile(r"```[a-z]*\n(.*?)```", re.I | re.S)
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.I | re.S)
_REASON = re.compile(r"\breason(?:ing)?[ \t*_`]*[:=][\s*_`]*", re.I)


@dataclass(frozen=True)
class ParsedAnswer:
    """What :func:`parse_answer` found.

    Attributes:
        entries: the declared list as it stands, errors and doubles included; labels count from 1.
        kind: how the list was declared; ``"none"`` if there is none.
        lists: how many lists of that kind contradict each other, 1 if none does, 0 without a list.
        reason: the text given as reason, or None.
    """

    entries: tuple[Entry, ...]
    kind: AnswerKind
    lists: int
    reason: str | None = None


def parse_answer(text: str) -> ParsedAnswer:
    """Find the list that an answer declares as its ranking.

    Never raises, whatever the text.

    Args:
        text: the model's answer.
    """
    text = _THOUGHTS.sub("", text[:MAX_ANSWER_CHARS])
    objects = list(_json_values(text))
    reason = _reason(text, objects)
    for kind, lists in (
        ("json", _json_lists(text, objects)),
        ("declared", _declared_lists(text)),
        ("line", _line_lists(text)),
        ("enumeration", _enumerations(text)),
        ("chain", [_entries(match.group()) for match in _CHAIN.finditer(text)]),
    ):
        if lists:
            return ParsedAnswer(tuple(lists[-1]), kind, len({tuple(each) for each in lists}), reason)  # type: ignore[arg-type]
    return ParsedAnswer((), "none", 0, reason)


def _to_entry(value: Any) -> Entry:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 10**9 else str(value)[:40]
    text = value.strip().strip("[]\"'` \t") if isinstance(value, str) else repr(value)
    label = _LABEL.match(text)
    return int(label.group(1)) if label else text[:40]


def _entries(text: str) -> list[Entry]:
    """Split a text that is a list, bracketed as ``[3] > [1]``, ``[3, 1]`` or bare."""
    found: list[Entry] = []
    for match in _ENTRY.finditer(text):
        found += _split(match.group())
    return found


def _split(entry: str) -> list[Entry]:
    return [_to_entry(part) for part in _INSIDE_JOINT.split(entry.strip("[]").strip())]


def _scan(text: str, position: int) -> tuple[list[Entry], int, bool]:
    """Read entries and joints from a position on; return them, the end, and whether all were bare."""
    found: list[Entry] = []
    bare = True
    end = position
    while match := _ENTRY.match(text, position):
        found += _split(match.group())
        bare = bare and not match.group().startswith("[")
        end = match.end()
        joint = _JOINT.match(text, end)
        if joint is None:
            break
        position = joint.end()
    return found, end, bare


def _json_values(text: str) -> Iterator[Any]:
    """Yield every JSON object of a text, or the array that a whole answer (or a fenced block) is."""
    decoder = json.JSONDecoder()
    for block in (text, *_FENCE.findall(text)):
        start = len(block) - len(block.lstrip())
        if block[start : start + 1] == "[":
            try:
                value, end = decoder.raw_decode(block, start)
            except (ValueError, RecursionError):
                continue
            if not block[end:].strip():
                yield value
    position = text.find("{")
    attempts = 0
    while position >= 0 and attempts < 100:
        attempts += 1
        try:
            value, position = decoder.raw_decode(text, position)
            yield value
        except (ValueError, RecursionError):
            position += 1
        position = text.find("{", position)


def _json_lists(text: str, values: list[Any]) -> list[list[Entry]]:
    arrays = [
        value["ranking"] if isinstance(value, dict) else value
        for value in values
        if isinstance(value, list) or isinstance(value.get("ranking"), list)
    ]
    if arrays:
        return [[_to_entry(entry) for entry in array] for array in arrays]
    if cut := list(_OPEN_ARRAY.finditer(text)):
        body, ended = cut[-1].group(1), text[cut[-1].end() :].startswith("]")
        parts = re.split(r"[,\s]+", body)
        if not ended:
            parts = parts[:-1]  # "1" may be what is left of "12"
        return [[_to_entry(part) for part in parts if part.strip()]]
    return []


def _declared_lists(text: str) -> list[list[Entry]]:
    found = []
    for match in _DECLARATION.finditer(text):
        entries, end, bare = _scan(text, match.end())
        if entries and (not bare or len(entries) > 1 or _LINE_END.match(text, end)):
            found.append(entries)
    return found


def _line_lists(text: str) -> list[list[Entry]]:
    found = []
    for match in _LINE_START.finditer(text):
        entries, end, bare = _scan(text, match.end())
        alone = text.strip() == text[match.start() : end].strip()
        if entries and _LINE_END.match(text, end) and (len(entries) > 1 or not bare or alone):
            found.append(entries)
    return found


def _enumerations(text: str) -> list[list[Entry]]:
    found: list[list[Entry]] = []
    for match in _ENUMERATED.finditer(text):
        number, entries = int(match.group(1)), _split(match.group(2))
        if number == 1:
            found.append(entries)
        elif found and number == len(found[-1]) + 1:
            found[-1] += entries
    return [entries for entries in found if len(entries) > 1]


def _reason(text: str, values: list[Any]) -> str | None:
    for value in reversed(values):
        if isinstance(value, dict) and isinstance(value.get("reason"), str):
            return value["reason"].strip() or None
    match = _REASON.search(text)
    if match is None or values or _OPEN_ARRAY.search(text):
        return None
    return text[match.end() :].strip() or None
