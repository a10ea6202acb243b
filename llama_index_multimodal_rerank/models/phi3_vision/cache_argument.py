"""The argument that carries the keys and values of earlier tokens: its name differs between releases.

transformers called it `past_key_values` up to 5.23 and calls it `cache` from 5.24 on, where the old name
warns (until 5.40), and where `generate` puts nothing but the new one into a model's inputs. Our own functions
accept both names; what we call gets the name it knows.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import Cache, Phi3Model

CACHE_NAMES = ("cache", "past_key_values")
"""The names, the newest first."""

CACHE_ARGUMENT = next(name for name in CACHE_NAMES if name in inspect.signature(Phi3Model.forward).parameters)
"""The name that the installed transformers uses, for arguments and for the fields of outputs."""


def cache_argument(cache: Cache | None) -> dict[str, Cache | None]:
    """Return the keyword argument for a function, or for an output, of the installed transformers."""
    return {CACHE_ARGUMENT: cache}


def pop_cache(kwargs: dict[str, Any]) -> Cache | None:
    """Take the cache out of keyword arguments, whichever of its names it has.

    Raises:
        ValueError: Two caches were given.
    """
    given = [kwargs.pop(name) for name in CACHE_NAMES if kwargs.get(name) is not None]
    for name in CACHE_NAMES:
        kwargs.pop(name, None)
    if len(given) > 1 and given[0] is not given[1]:
        raise ValueError(
            f"two caches were given, as {' and as '.join(map(repr, CACHE_NAMES))}; give one of them"
        )
    return given[0] if given else None


def output_cache(output: Any) -> Cache:
    """Return the cache that an output of a model or of `generate` holds."""
    cache: Cache = getattr(output, CACHE_ARGUMENT)
    return cache
