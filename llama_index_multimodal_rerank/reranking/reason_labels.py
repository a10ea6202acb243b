"""From the numbers on a sheet, which nobody sees, to places that a reader can look up.

A model's reason calls candidates by their labels, ``[6]``. Whoever reads it has the list that was returned,
and no sheet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_LABELS = re.compile(r"\[\s*([1-9][0-9]*(?:\s*(?:[,;&]|and)\s*[1-9][0-9]*)*)\s*\](?!\()")
"""``[6]``, ``[6, 2]`` or ``[6 and 2]``; not the ``[1](…)`` of a link."""


def relabel(reason: str, names: Mapping[int, str]) -> str:
    """Write names for labels.

    Only numbers in brackets are labels, and only those that are on the sheet: a number in prose is a number
    ("the 3 buttons"), and so is ``[2024]``.

    Args:
        reason: a model's words.
        names: what is written for each label of its sheet, brackets included.
    """

    def named(match: re.Match[str]) -> str:
        labels = [int(number) for number in re.findall(r"[0-9]+", match[1])]
        if any(label not in names for label in labels):
            return match[0]
        return ", ".join(names[label] for label in labels)

    return _LABELS.sub(named, reason)


def by_place(reason: str, labelled: Sequence[int], order: Sequence[int], *, top_n: int) -> str:
    """Call the candidates of a reason by their places in the list that is returned: ``#1``.

    One that was ranked too low to be returned is called ``#7 (not returned)``.

    Args:
        reason: a model's words.
        labelled: the candidates on its sheet, the one labelled 1 first.
        order: all candidates, best first.
        top_n: how many are returned.
    """
    ranks = {candidate: rank for rank, candidate in enumerate(order, start=1)}
    names = {}
    for label, candidate in enumerate(labelled, start=1):
        rank = ranks[candidate]
        names[label] = f"#{rank}" if rank <= top_n else f"#{rank} (not returned)"
    return relabel(reason, names)
