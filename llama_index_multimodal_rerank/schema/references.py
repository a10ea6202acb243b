"""References: a few characters that lead back to a picture, where only characters are kept.

LlamaIndex's tools join their arguments into a new string, and leave out a query that has no characters.
A reference is a mark such as ``[#0f…]`` in such a string. It holds in this process, as long as the object
that it stands for lives. It cannot be guessed: it ends in a keyed checksum; what only looks like one is text.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections import deque
from typing import Any
from weakref import WeakValueDictionary

_KEY = secrets.token_bytes(32)
_LOOKS_LIKE_ONE = re.compile(r"\[#([0-9a-f]{16})([0-9a-f]{16})\]")
_CARRIERS: WeakValueDictionary[str, Any] = WeakValueDictionary()


def _checksum(number: str) -> str:
    return hashlib.blake2b(number.encode(), key=_KEY, digest_size=8).hexdigest()


# Drawn many at a time, since the system is asked for them. A forked process draws its own.
_NUMBERS: deque[str] = deque()
_NUMBERS_AT_ONCE = 512
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_NUMBERS.clear)


def _new_number() -> str:
    try:
        return _NUMBERS.popleft()
    except IndexError:
        drawn = secrets.token_hex(8 * _NUMBERS_AT_ONCE)
        first, *others = (drawn[start : start + 16] for start in range(0, len(drawn), 16))
        _NUMBERS.extend(others)
        return first


def new_reference() -> str:
    """Return a reference that leads nowhere yet; see :func:`set_carrier`."""
    number = _new_number()
    return f"[#{number}{_checksum(number)}]"


def set_carrier(reference: str, carrier: Any) -> None:
    """Let a reference lead to an object, as long as that lives."""
    _CARRIERS[reference] = carrier


def find_references(text: str) -> list[str]:
    """Return the distinct references of this process in a text, in order."""
    if "[#" not in text:  # every text is looked through, and hardly one has any
        return []
    found = (match for match in _LOOKS_LIKE_ONE.finditer(text) if _checksum(match[1]) == match[2])
    return list(dict.fromkeys(match[0] for match in found))


def carrier_of(reference: str) -> Any | None:
    """Return the object that a reference leads to, None if it no longer lives."""
    return _CARRIERS.get(reference)
