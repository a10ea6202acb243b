"""Keys and values of a prompt and of what will follow it, in memory that stays where it is.

A CUDA graph reads and writes the addresses that it was captured with. transformers' own static layer counts
its tokens in ways that differ between releases (by `cache_position` up to 5.3, by a counter on the device
since), and attends to all of its slots while a prompt is read. So the layer here is told from outside where
tokens are written, and a prompt is read as with a dynamic cache, to the same numbers.
"""

# transformers annotates only some of its functions.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import StaticLayer


class _Place:
    """Where the next tokens are written: shared by the layers of a cache."""

    def __init__(self) -> None:
        self.slots: torch.Tensor | None = None  # (tokens,); None while the prompt is read
        self.prompt_length = 0


class _Layer(StaticLayer):
    # A prompt is read with a plain causal mask, as by a dynamic layer.
    is_compileable = False

    def __init__(self, place: _Place, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__(max_cache_len=keys.shape[2])
        self.keys, self.values = keys, values
        self.is_initialized = True
        self._place, self._kept = place, (keys, values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys and values (batch, heads, tokens, width); return those to attend to."""
        slots, length = self._place.slots, key_states.shape[2]
        for kept, states in zip(self._kept, (key_states, value_states), strict=True):
            if slots is not None:
                kept.index_copy_(2, slots, states)
            else:
                kept[:, :, :length] = states
                kept[:, :, length:] = 0  # the memory may hold anything, and 0 times NaN is NaN
        return (key_states, value_states) if slots is None else self._kept

    def get_seq_length(self) -> int:
        """Return 0: positions and masks of what follows the prompt are given."""
        return 0

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Return how many keys a prompt attends to, and where the first is."""
        return self._place.prompt_length, 0


class StaticPromptCache(Cache):
    """A cache over tensors that were made before.

    Args:
        keys: Of every layer, (batch, heads, slots, width).
        values: The same.
    """

    def __init__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        self._place = _Place()
        self._kept = list(zip(keys, values, strict=True))
        self.slots = keys[0].shape[2]
        super().__init__(layers=[_Layer(self._place, *both) for both in self._kept])

    def read_prompt(self, length: int) -> None:
        """Have the next forward pass read a prompt of so many tokens into the first slots."""
        self._place.slots, self._place.prompt_length = None, length

    def read_more(self, slots: torch.Tensor | None) -> None:
        """Have the next forward pass, with a mask over all slots, write its tokens into these, (tokens,)."""
        self._place.slots = slots

    def as_dynamic(self, length: int) -> DynamicCache:
        """Return a dynamic cache with a copy of the first slots."""
        cache = DynamicCache()
        for number, both in enumerate(self._kept):
            keys, values = (kept[:, :, :length].clone() for kept in both)
            cache.update(keys, values, number)
        return cache
