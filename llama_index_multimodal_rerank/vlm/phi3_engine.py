"""What a loaded Phi-3 Vision does: it reads prompts, scores labels, writes lists and answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from .decoding import PrefilledPrompt, decode_ranking, write_freely
from .permutation_constraint import REASON, ListTokens, PermutationConstraint, read_list
from .permutation_logits import PermutationLogitsProcessor, first_label_probabilities
from .phi3_prompts import Phi3Prompts
from .protocols import LabelRanking
from .static_decoding import StaticDecoder

if TYPE_CHECKING:
    from .phi3_loading import LoadedPhi3Vision
    from .protocols import ImagePrompt, RankRequest

_END_OF_TURN = "<|end|>"

REASON_ROOM = 256
"""Tokens of a reason that there is room for behind a prompt that may yet be explained; more may follow."""


class Phi3Engine:
    """The model at work, for one thread at a time.

    Args:
        name: of the model, for messages.
        loaded: the model and its processor.
    """

    def __init__(self, name: str, loaded: LoadedPhi3Vision) -> None:
        self._name = name
        self._model, self._tokenizer = loaded.model, loaded.processor.tokenizer
        self.prompts = Phi3Prompts(*loaded)
        self.decoder = StaticDecoder(loaded.model) if StaticDecoder.supports(loaded.model) else None
        # The published configuration names only </s>, which the model does not write.
        self._stops = {self._tokenizer.eos_token_id, self._tokenizer.convert_tokens_to_ids(_END_OF_TURN)}

    def answer(self, asked: Sequence[ImagePrompt], *, num_crops: int, max_new_tokens: int) -> list[str]:
        """Answer prompts freely, in one batch.

        Args:
            asked: the prompts.
            num_crops: tiles of 336 pixels a picture is cut into, at most.
            max_new_tokens: length of each answer at most, in tokens.
        """
        prompt = self.prompts.prepare(asked, num_crops)
        prefilled = PrefilledPrompt(self._model, prompt, decoder=self.decoder, room=max_new_tokens)
        return [self._decode(ids) for ids in write_freely(prefilled, self._stops, max_new_tokens)]

    def read(
        self, requests: Sequence[RankRequest], *, num_crops: int, max_new_tokens: int | None
    ) -> PrefilledPrompt:
        """Read requests up to the opening of the list.

        Args:
            requests: the sheets, of equally many labels.
            num_crops: tiles of 336 pixels a sheet is cut into, at most.
            max_new_tokens: tokens for the reason after the list; None if nobody knows yet.

        Raises:
            ValueError: the requests rank different numbers of labels.
            FloatingPointError: the numbers of the model are not finite.
        """
        tokens = self.list_tokens(requests)
        prompt = self.prompts.prepare(requests, num_crops).append(torch.tensor(tokens.opening))
        after = self.list_tokens(requests, REASON).longest
        room = after + (REASON_ROOM if max_new_tokens is None else max_new_tokens)
        prefilled = PrefilledPrompt(self._model, prompt, decoder=self.decoder, room=room)
        if prefilled.logits.isnan().any():
            raise FloatingPointError(
                f"{self._name} computes numbers that are not finite in {self._model.dtype}; set dtype "
                "to 'bfloat16' or 'float32'"
            )
        return prefilled

    def score(self, prefilled: PrefilledPrompt, requests: Sequence[RankRequest]) -> list[list[float]]:
        """Return, for each request that was read, the log-probability of each label to be written first."""
        tokens = self.list_tokens(requests)
        rows = [
            first_label_probabilities(tokens, partial(prefilled.peek, row=row))
            for row in range(len(requests))
        ]
        smallest = torch.finfo(torch.float64).tiny
        return [torch.tensor(row, dtype=torch.float64).clamp_min(smallest).log().tolist() for row in rows]

    def rank(
        self,
        prefilled: PrefilledPrompt,
        requests: Sequence[RankRequest],
        orders: Sequence[Sequence[int] | None],
        *,
        max_new_tokens: int,
    ) -> list[LabelRanking]:
        """Write the rankings of requests that were read, and the reasons for them.

        Args:
            prefilled: the requests, up to the opening of the list.
            requests: the same.
            orders: for each request the order to write, labels from 0; None if the model chooses.
            max_new_tokens: tokens for the reason after the list; 0 for none.
        """
        tokens = self.list_tokens(requests, REASON if max_new_tokens else "")
        constraints = [PermutationConstraint(tokens, order) for order in orders]
        length = prefilled.prompt.input_ids.shape[1] - len(tokens.opening)
        masking = PermutationLogitsProcessor(constraints, length)
        lists, unread = decode_ranking(prefilled, masking, tokens.opening, tokens.longest)
        reasons = [""] * len(requests)
        if max_new_tokens:
            written = write_freely(prefilled, self._stops, max_new_tokens, lists[:, -unread:])
            reasons = [self._decode(ids) for ids in written]
        return [
            LabelRanking(
                read_list(constraint, ids).order, tuple(masking.label_probabilities(row, ids)), reason
            )
            for row, (constraint, ids, reason) in enumerate(
                zip(constraints, lists.tolist(), reasons, strict=True)
            )
        ]

    def list_tokens(self, requests: Sequence[RankRequest], ending: str = "") -> ListTokens:
        """Return the pieces that rankings of the requests are written with; see ``tokenize_list``.

        Raises:
            ValueError: the requests rank different numbers of labels, or none.
        """
        counts = {request.num_labels for request in requests}
        if len(counts) != 1 or min(counts) < 1:
            raise ValueError(f"the requests of a batch must rank equally many labels, got {sorted(counts)}")
        return self.prompts.list_tokens(counts.pop(), ending)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
