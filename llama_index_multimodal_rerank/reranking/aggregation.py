"""One order out of several, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence


def borda_count(orders: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Aggregate orders of the same n candidates by Borda's rule.

    A candidate gets n-1 points for a first place, 0 for a last one. Ties go to the lower index,
    which is the better retrieval rank.

    Args:
        orders: k orders, each a permutation of 0..n-1, best first.

    Returns:
        The order, and the mean points of each of its places over n-1 (0 to 1; 1 if n is 1).

    Source: J.-C. de Borda, "Mémoire sur les élections au scrutin", 1781.
    """
    n = len(orders[0])
    points = [0] * n
    for order in orders:
        for place, candidate in enumerate(order):
            points[candidate] += n - 1 - place
    winners = sorted(range(n), key=lambda candidate: (-points[candidate], candidate))
    highest = len(orders) * (n - 1)
    return tuple(winners), tuple(points[candidate] / highest if highest else 1.0 for candidate in winners)


def kendall_w(orders: Sequence[Sequence[int]]) -> float:
    """Return Kendall's coefficient of concordance: 1 if all orders are equal, 0 if they cancel out.

    Args:
        orders: k orders, each a permutation of 0..n-1.

    Source: M. G. Kendall and B. Babington Smith, "The problem of m rankings", 1939.
    """
    k, n = len(orders), len(orders[0])
    if n < 2:
        return 1.0
    sums = [0] * n
    for order in orders:
        for place, candidate in enumerate(order):
            sums[candidate] += place
    mean = k * (n - 1) / 2
    return 12 * sum((total - mean) ** 2 for total in sums) / (k**2 * (n**3 - n))
