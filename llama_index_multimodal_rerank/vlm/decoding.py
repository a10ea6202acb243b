"""Prompts that Phi-3 Vision has read, with the cache that lets it go on from there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from ..models.phi3_vision.cache_argument import output_cache
from .static_decoding import StaticPrompt

if TYPE_CHECKING:
    from transformers import Cache

    from ..models.phi3_vision import Phi3VisionForConditionalGeneration
    from .permutation_logits import PermutationLogitsProcessor
    from .prompt_batch import Prompt
    from .static_decoding import StaticDecoder


class PrefilledPrompt:
    """What the model makes of a batch of prompts, read once.

    Args:
        model: the model.
        prompt: the prompts.
        decoder: reads what is not too long into fixed memory. Default: memory grows token by token.
        room: tokens that are going to follow, for ``decoder``. More may.
    """

    def __init__(
        self,
        model: Phi3VisionForConditionalGeneration,
        prompt: Prompt,
        *,
        decoder: StaticDecoder | None = None,
        room: int = 0,
    ) -> None:
        self._model = model
        self.prompt = prompt
        static = None if decoder is None else decoder.read(prompt, room)
        self._read: Cache | StaticPrompt
        self.logits, self._read = self._read_all(prompt) if static is None else static
        """Of the next token, (batch, vocabulary); and the keys and values of ``prompt``."""
        self._peeked: dict[tuple[int, ...], torch.Tensor] = {}

    def peek(self, ids: tuple[int, ...], row: int) -> torch.Tensor:
        """Return the logits that would follow after more tokens, (vocabulary,), which are not kept."""
        if ids not in self._peeked:
            self._peeked[ids] = self._peek(ids).cpu()
        return self._peeked[ids][row]

    def _peek(self, ids: tuple[int, ...]) -> torch.Tensor:
        if not ids:
            return self.logits
        longer = self.prompt.append(torch.tensor(ids))
        if self._outgrows(longer):
            return self._read_all(longer)[0]
        return self._read_more(longer, len(ids), keep=False)

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        """Read more tokens, (batch, more), and return the logits of what follows, (batch, vocabulary)."""
        longer = self.prompt.append(ids)
        if self._outgrows(longer):
            self.logits, self._read = self._read_all(longer)
        else:
            self.logits = self._read_more(longer, ids.shape[1], keep=True)
        self.prompt, self._peeked = longer, {}
        return self.logits

    def _outgrows(self, longer: Prompt) -> bool:
        # The rotary factors change there, and with them the cached keys.
        return self._model.outgrows_rotation(
            longer.input_ids.shape[1], self.prompt.input_ids.shape[1], longer.attention_mask
        )

    def _read_all(self, prompt: Prompt) -> tuple[torch.Tensor, Cache]:
        output = self._model(**prompt.model_inputs(self._model.device), use_cache=True, logits_to_keep=1)
        return output.logits[:, -1], output_cache(output)

    def _read_more(self, longer: Prompt, new: int, *, keep: bool) -> torch.Tensor:
        if isinstance(self._read, StaticPrompt):
            if self._read.has_room(new):
                return self._read.read(longer.input_ids[:, -new:], keep=keep)
            self._read = self._read.as_dynamic()
        device = self._model.device
        output = self._model(
            input_ids=longer.input_ids[:, -new:].to(device),
            attention_mask=longer.attention_mask.to(device),
            cache=self._read,
            logits_to_keep=1,
        )
        if not keep:
            self._read.crop(-new)
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def decode_ranking(
    prefilled: PrefilledPrompt, masking: PermutationLogitsProcessor, begun: Sequence[int], length: int
) -> tuple[torch.Tensor, int]:
    """Write rankings greedily under the constraint, without asking the model where there is no choice.

    Brackets and separators follow from the labels, and the last label from the others. They are read
    together with the next token that the model chooses, which takes one forward pass a label instead of one
    a token, for the same list.

    Args:
        prefilled: prompts with the beginning of the list.
        masking: the constraint, new.
        begun: token ids of that beginning.
        length: tokens of the whole list.

    Returns:
        Token ids of the lists, (batch, length), and how many of the last ones were not read yet, at least 1.
    """
    ids = prefilled.prompt.input_ids
    known, lists = ids[:, : ids.shape[1] - len(begun)], ids[:, :0]
    scores = prefilled.logits.cpu()  # the constraint looks at a few numbers of every row, one by one
    unread = 0
    for place in range(length):
        if unread and not masking.is_forced(lists.tolist()):
            scores, unread = prefilled.extend(lists[:, -unread:]).cpu(), 0
        chosen = masking(torch.cat([known, lists], dim=1), scores).argmax(dim=-1, keepdim=True)
        lists = torch.cat([lists, chosen], dim=1)
        unread += place >= len(begun)
    return lists, unread


def write_freely(
    prefilled: PrefilledPrompt,
    stops: Collection[int],
    max_new_tokens: int,
    unread: torch.Tensor | None = None,
) -> list[list[int]]:
    """Write greedily, each row up to a token that ends it.

    Args:
        prefilled: the prompts.
        stops: tokens that end an answer.
        max_new_tokens: tokens to write at most, 1 or more.
        unread: tokens that stand before the answer and were not read yet, (batch, tokens).

    Returns:
        The new tokens of each row, its stop token included.
    """
    scores = prefilled.logits if unread is None else prefilled.extend(unread)
    rows: list[list[int]] = [[] for _ in range(len(scores))]
    ended = [False] * len(rows)
    while True:
        chosen = scores.argmax(dim=-1).tolist()
        for number, token in enumerate(chosen):
            if not ended[number]:
                rows[number].append(token)
                ended[number] = token in stops or len(rows[number]) == max_new_tokens
        if all(ended):
            return rows
        scores = prefilled.extend(torch.tensor(chosen)[:, None])
