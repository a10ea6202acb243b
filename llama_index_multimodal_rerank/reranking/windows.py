"""Windows that slide over a list from its end to its start."""

from __future__ import annotations


def sliding_windows(n: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return (start, end) of overlapping windows, the last part of the list first.

    Whatever is best in a window moves to its front and so into the next one: a candidate from the
    end can travel to the top in one pass.

    Args:
        n: length of the list.
        window: how many candidates are ranked at once, at least 2.
        stride: how far a window lies above the one before, 1 to ``window - 1``.

    Source: "Is ChatGPT Good at Search?" (RankGPT), arXiv:2304.09542, section 3.3.
    """
    spans = []
    end = n
    while end > window:
        spans.append((end - window, end))
        end -= stride
    spans.append((0, min(window, n)))
    return spans
