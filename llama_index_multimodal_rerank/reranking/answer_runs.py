"""Runs of labels and joints on one line, the stuff that lists are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .answer_labels import Entry, read_joint, read_label

_BULLET = re.compile(r"[-+] ")
_LEADING_JOINT = re.compile(r"[>=~,;|]+ ?")
_LINE_END = re.compile(r" ?[.!]?")
_COUNTER = re.compile(
    r"(?:[-+>] ?)?(?:(?:rank|place|position) ?#?(?P<n1>\d{1,3})(?!\d)(?: ?[.):-]| ?->)? ?"
    r"|[(#]?(?P<n2>\d{1,3})(?:(?:st|nd|rd|th)[.):]?|\.\)|[.)]|(?P<weak>:| ?-| ?->)) ?)",
    re.I,
)
_BARE_START = frozenset("+-0123456789")

Entries = list[Entry]


@dataclass(frozen=True)
class Run:
    """Labels and joints that follow one another.

    Attributes:
        entries: what the labels hold.
        labels: how many there are.
        bare: whether all are numbers alone.
        end: the first position after the last label.
        blanks: whether nothing but a blank stands between some of them.
        open_end: whether a joint ends the line, so that the next one goes on with the list.
        open_start: whether a joint begins the line.
    """

    entries: Entries
    labels: int
    bare: bool
    end: int
    blanks: bool = False
    open_end: bool = False
    open_start: bool = False


def read_run(text: str, start: int, *, blanks: bool = False) -> Run | None:
    """Read labels and joints from a position on; ``blanks`` join labels, too, if asked."""
    entries: Entries = []
    labels, all_bare, by_blanks = 0, True, False
    position, end, joint = start, start, ""
    while True:
        label = _counted_label(text, position, labels + 1)
        counted = label is not None
        # Bare numbers after brackets are labels where the joint says so: "[4] > 2", but not "[4], 2 cats".
        label = label or read_label(text, position, bare=all_bare or ">" in joint or "=" in joint)
        if label is None:
            open_end = labels > 0 and position == len(text)
            break
        bare = text[position] in _BARE_START and not counted
        by_blanks = by_blanks or (labels > 0 and not joint.strip())
        labels, all_bare = labels + 1, all_bare and bare
        entries += label[0]
        open_end, end = False, label[1]
        following = read_joint(text, end, blanks=blanks)
        if following is None or (following == end and text[end : end + 1] != "["):
            break
        position, joint = following, text[end:following]
        if bare and joint.strip() == "-":  # a range, a difference
            break
    return Run(entries, labels, all_bare, end, by_blanks, open_end) if labels else None


def _counted_label(text: str, position: int, place: int) -> tuple[Entries, int] | None:
    """Read ``2. [4]`` where the second label stands."""
    counter = _COUNTER.match(text, position)
    if counter is None or int(counter["n1"] or counter["n2"]) != place:
        return None
    return read_label(text, counter.end(), bare=False)


def read_line(line: str) -> Run | None:
    """Read a line that is a list, or a part of one, and nothing else."""
    bullet = _BULLET.match(line)
    start = bullet.end() if bullet else 0
    joint = _LEADING_JOINT.match(line, start)
    run = read_run(line, joint.end() if joint else start)
    if run is None or not (run.open_end or ends_line(line, run)):
        return None
    if run.labels == 1 and numbered(line, 1) is not None:  # the first line of an enumeration
        return None
    return replace(run, open_start=joint is not None)


def ends_line(text: str, run: Run) -> bool:
    """Tell whether nothing follows a run but a full stop."""
    match = _LINE_END.match(text, run.end)
    return match is not None and match.end() == len(text)


def numbered(line: str, place: int) -> Entries | None:
    """Read the label of a line ``2. [4]`` or ``Rank 2: Image 4`` with this number, or return None."""
    counter = _COUNTER.match(line)
    if counter is None or int(counter["n1"] or counter["n2"]) != place:
        return None
    label = read_label(line, counter.end(), bare=counter["weak"] is None)
    if label is None:
        return None
    is_bare = line[counter.end()] in _BARE_START
    rest = _LINE_END.match(line, label[1])
    if is_bare and (rest is None or rest.end() < len(line)):  # "1. 3 chairs"
        return None
    return label[0]
