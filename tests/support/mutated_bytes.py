"""Files with bytes changed anywhere, for fuzzers of everything that reads untrusted bytes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_NUMBERS = [number.to_bytes(4, "big") for number in (0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)]


def mutated(
    rng: Random,
    data: bytes,
    *,
    times: int,
    reach: int | None = None,
    tokens: Sequence[bytes] = (),
    others: Sequence[bytes] = (),
) -> bytes:
    """Return a file with bytes changed, cut, repeated, put in, or spliced with another file.

    Args:
        rng: where chance comes from; equal states give equal files.
        data: the file.
        times: changes, one after the other.
        reach: they begin in the first ``reach`` bytes; None: anywhere.
        tokens: words of the format, put in or written over others.
        others: files whose ends may take the place of this one's.
    """
    changed = bytearray(data)
    ways = [way for way in range(8) if (way != 6 or tokens) and (way != 7 or others)]
    for _ in range(times):
        place = rng.randrange(max(1, min(reach or len(changed), len(changed))))
        way = rng.choice(ways)
        if way == 0 and changed:
            changed[place] = rng.randrange(256)
        elif way == 1 and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif way == 2:
            del changed[place : place + rng.randint(1, 40)]
        elif way == 3:
            changed[place:place] = rng.randbytes(rng.randint(1, 20))
        elif way == 4:
            changed[place:place] = changed[place : place + rng.randint(1, 80)]
        elif way == 5:
            changed[place : place + 4] = rng.choice(_NUMBERS)
        elif way == 6:
            token = rng.choice(tokens)
            changed[place : place + len(token) * rng.randint(0, 1)] = token
        elif way == 7:
            other = rng.choice(others)
            changed[place:] = other[rng.randrange(len(other)) :]
    return bytes(changed)
