# ruff: noqa: RUF001 (look-alikes are what it is about)
r"""Labels and what stands between them: how the entries of a list are written.

- A *label* is a number in brackets (``[4]``, ``[#4]``, ``[Image 4]``, ``[4.0]``, ``【4】``), a number after
  a word for a candidate (``Image 4``, ``candidate #4``), or, where only a list can stand, a bare number.
  Brackets may hold several: ``[4, 2]``. What is no label is kept as text, so that it can be counted.
- A *joint* is ``>`` and its relatives (``≻ → -> ≥ &gt; \succ``), ``=`` and ``~`` for ties, ``, ; |``,
  ``and``, ``then``. ``<`` is none: a list that is joined by it begins with the worst.
"""

from __future__ import annotations

import re

Entry = int | str
"""One entry of a list: a whole number, or the text of what is none."""

WORDS = r"(?:image|picture|photo|candidate|cell|item|option|product|result|number|no\.)"

_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("【［〔⟦〖", "["),
        **dict.fromkeys("】］〕⟧〗", "]"),
        **dict.fromkeys("≻≽⪰⪲⊳＞›»→⇒⟶⟹➔➜➡▶►≥≧⩾", ">"),
        **dict.fromkeys("≺≼⪯⊲＜‹«←⇐⟵≤≦⩽", "<"),
        **dict.fromkeys("≈≃∼～＝≡⇔↔", "="),
        **dict.fromkeys("–—•·", "-"),
        **dict.fromkeys("，、", ","),
        **dict.fromkeys("；", ";"),
        **dict.fromkeys("：", ":"),
        **dict.fromkeys("｜│", "|"),
        **dict.fromkeys("＃№", "#"),
        **dict.fromkeys("\u2028\u2029\x0b\x0c\x85", "\n"),
        **dict.fromkeys('*`$"“”„\ufe0f\u20e3\u200b\u200c\u200d\u2060\ufeff', None),
        **{chr(0x2460 + n): f"[{n + 1}]" for n in range(20)},  # circled numbers
    }
)
_MARKUP = (
    (re.compile(r"&(?:gt|#0*62|#x0*3e);|\\(?:succ|succeq|gt|geq?|rightarrow|to|Rightarrow)\b"), ">"),
    (re.compile(r"&(?:lt|#0*60|#x0*3c);|\\(?:prec|preceq|lt|leq?|leftarrow)\b"), "<"),
    (re.compile(r"<br ?/?>|</?(?:p|li|ol|ul|div)>", re.I), "\n"),
    (re.compile(r"\\boxed\{([^{}\n]*)\}"), r"\nRanking: \1\n"),
    (re.compile(r"<(?:parameter ?= ?)?(?:final_)?ranking>", re.I), "\nRanking: "),
    (re.compile(r"</(?:parameter|(?:final_)?ranking)>", re.I), "\n"),
    (re.compile(r"__|\\(?=[\[\]>.#])"), ""),
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\n ?"), "\n"),
    # Arrays of numbers that were set on several lines are put on one.
    (re.compile(r"\[[\s\d,'#.>;|]*\]"), lambda array: " ".join(array.group().split())),
)

_LABEL = re.compile(rf"(?:{WORDS} ?)?(?:(?:no\.?|number) ?)?#? ?(\d{{1,9}})(?:\.0{{1,9}})?", re.I)
_BRACKETS = re.compile(r"\[([^\[\]\n]*)\]")
_NAMED = re.compile(
    rf"{WORDS} ?(?:(?:no\.?|number) ?)?#? ?(\d{{1,9}})(?![\w%]|\.\d)|#(\d{{1,9}})(?![\w%]|\.\d)", re.I
)
_BARE = re.compile(r"[+-]?\d+(?:\.\d+)?(?![\w%]|\.\w)")
_JOINT = re.compile(r" ?(?:-{1,3}>|[>=~,;|])+(?: ?(?:>|and|then|&)(?!\w))? ?| (?:and|then|&|-) ")
_INSIDE = re.compile(r" ?(?:-{1,3}>|[>=~,;|])+ ?| (?:and|&) ")

MAX_QUOTED = 40
"""Characters that are kept of an entry which is no label."""


def normalized(text: str) -> str:
    """Return a text with the many ways of writing labels and joints brought down to a few.

    Marks of emphasis are gone, runs of blanks are one blank, lines have none at either end.
    """
    text = text.translate(_CHARACTERS)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text.strip()


def to_entry(text: str) -> Entry:
    """Read one entry; anything that is no label is returned as text."""
    text = " ".join(text.split()).strip("[]\"'` ")
    label = _LABEL.fullmatch(text)
    return int(label.group(1)) if label else text[:MAX_QUOTED]


def split_entries(text: str) -> list[Entry]:
    """Read the contents of brackets or of a JSON string: one entry, or several with joints."""
    return [to_entry(part) for part in _INSIDE.split(" ".join(text.split()).strip("[] "))]


def read_label(text: str, position: int, *, bare: bool) -> tuple[list[Entry], int] | None:
    """Read a label that begins at a position.

    Args:
        text: normalised text.
        position: where it must begin.
        bare: whether it may be a number alone.

    Returns:
        Its entries (brackets may hold several) and the first position after it, or None.
    """
    if match := _BRACKETS.match(text, position):
        return split_entries(match.group(1)), match.end()
    if match := _NAMED.match(text, position):
        return [int(match.group(1) or match.group(2))], match.end()
    if bare and (match := _BARE.match(text, position)):
        return [to_entry(match.group())], match.end()
    return None


def read_joint(text: str, position: int, *, blanks: bool = False) -> int | None:
    """Return the first position after a joint that begins at a position, or None.

    Args:
        text: normalised text.
        position: where it must begin.
        blanks: whether nothing but a blank joins labels, too.
    """
    match = _JOINT.match(text, position)
    if match is not None:
        return match.end()
    return position + text.startswith(" ", position) if blanks else None
