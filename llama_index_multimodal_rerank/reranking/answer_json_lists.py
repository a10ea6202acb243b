"""The rankings that JSON declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .answer_json import Container, JsonValue, Literal, json_objects
from .answer_labels import MAX_QUOTED, Entry, split_entries, to_entry
from .answer_lists import read_string

_NO_LETTER = re.compile(r"[^a-z]+")
_RANKING_KEY = re.compile(
    r"(?:final)?(?:rank(?:ings?|ed)(?:order|list|candidates|images|ids|labels)?|rankorder|order(?:ing)?)"
)
_LABEL_KEY = re.compile(r"(?:candidate|image|cell|item)?(?:number|label|no|id)|candidate|image|cell|item")
_PLACE_KEYS = frozenset({"rank", "place", "position"})
_REASON_KEYS = frozenset({"reason", "reasoning", "explanation", "rationale"})
_LOOKS_LIKE_ONE = re.compile(r"""rank\w{0,9}\\?["'][ \t]?:""", re.I)
_WHOLE = re.compile(r"[+-]?(\d{1,9})(?:\.0*)?")


@dataclass
class JsonAnswer:
    """What JSON values declare.

    Attributes:
        lists: their rankings, in order.
        reason: the reason given beside the last one, or None.
        doubtful: whether the text breaks the rules of JSON before a ranking, and there is more than one that
            looks so: any of them may be the contents of a string.
        read: the values that hold a ranking.
    """

    lists: list[list[Entry]] = field(default_factory=list)
    reason: str | None = None
    doubtful: bool = False
    read: set[JsonValue] = field(default_factory=set)


@dataclass(frozen=True)
class _Found:
    depth: int
    sound: bool
    value: Any
    owner: Container


def json_answer(values: Sequence[JsonValue]) -> JsonAnswer:
    """Return the rankings that values declare; an array that is given is one itself."""
    answer = JsonAnswer()
    for outer in values:
        if not outer.value.is_object:
            found = [_Found(0, outer.sound, outer.value, outer.value)]
        else:
            found = list(_rankings(outer.value))
        # Where the text broke the rules, strings begin to be taken for what is between them.
        sound = [each for each in found if each.sound]
        if found and not sound:
            seen = sum(1 for _ in _LOOKS_LIKE_ONE.finditer(outer.text, outer.start, outer.end))
            answer.doubtful = answer.doubtful or seen > 1
        found = sound or found
        highest = min((each.depth for each in found), default=0)
        for each in found:
            entries = _entries(each.value) if each.depth == highest else []
            if entries:
                answer.lists.append(entries)
                answer.reason = _reason(each.owner, sound=outer.sound) or answer.reason
                answer.read.add(outer)
    return answer


def _rankings(root: Container) -> Iterator[_Found]:
    """Yield what stands under the key of a ranking, at any depth, in the order of the text."""
    waiting = [(0, root)]
    while waiting:
        depth, container = waiting.pop()
        inner: list[tuple[int, Container]] = []
        for (key, value), sound in zip(container.members, container.sound, strict=True):
            name = _letters(key)
            if _RANKING_KEY.fullmatch(name) and (not isinstance(value, Container) or not value.is_object):
                yield _Found(depth, sound, value, container)
            elif isinstance(value, Container):
                inner.append((depth + 1, value))
            elif name == "arguments" and isinstance(value, str):  # of a call, which are JSON in JSON
                inner += [(depth + 1, each.value) for each in json_objects(value)]
        waiting += reversed(inner)


def _entries(value: Any) -> list[Entry]:
    if isinstance(value, Container):
        if places := _places(value):
            return [entry for _, entry in sorted(places)]
        return [entry for _, member in value.members for entry in _members(member)]
    return [] if isinstance(value, Literal) else read_string(value)


def _places(array: Container) -> list[tuple[int, Entry]]:
    """Return the places that the objects of an array give themselves, if they are 1, 2, 3 and so on."""
    places: list[tuple[int, Entry]] = []
    for _, member in array.members:
        if not isinstance(member, Container) or not member.is_object:
            return []
        place = next((_number(value) for key, value in member.members if key.lower() in _PLACE_KEYS), None)
        label = _members(member)
        if place is None or len(label) != 1:
            return []
        places.append((place, label[0]))
    return places if sorted(place for place, _ in places) == list(range(1, len(places) + 1)) else []


def _members(value: Any) -> list[Entry]:
    """Return the entries that a member of an array stands for; one that is no label is kept as text."""
    if isinstance(value, Container):
        if value.is_object:
            named = (
                member
                for key, member in value.members
                if _LABEL_KEY.fullmatch(_NO_LETTER.sub("", key.lower()))
            )
            return [next((label for label in map(_leaf, named) if isinstance(label, int)), "{…}")]
        return [_leaf(value.members[0][1])] if len(value.members) == 1 else ["[…]"]
    if isinstance(value, Literal):
        return [_leaf(value)]
    return split_entries(value)


def _letters(key: str) -> str:
    return _NO_LETTER.sub("", key.lower())


def _leaf(value: Any) -> Entry:
    if isinstance(value, Container):
        return "{…}"
    if isinstance(value, Literal):
        number = _number(value)
        return value[:MAX_QUOTED] if number is None else number
    return to_entry(value)


def _number(value: Any) -> int | None:
    match = _WHOLE.fullmatch(value) if isinstance(value, str) else None
    return int(match.group()[: match.end(1)]) if match else None


def _reason(owner: Container, *, sound: bool) -> str | None:
    for place, (key, value) in enumerate(owner.members):
        if key.lower() in _REASON_KEYS and isinstance(value, str) and not isinstance(value, Literal):
            # Cut short it is a reason still; but what ends at a quotation mark of its own is the half of one.
            cut = place == len(owner.members) - 1 and not owner.sound[place]
            return value.strip() or None if sound or cut else None
    return None
