"""Logits under the permutation constraint: masks, and the probabilities of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessor

from .permutation_constraint import ListTokens, PermutationConstraint, State


class PermutationLogitsProcessor(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Mask every token that the constraint does not allow; rows of a batch are independent.

    After the complete list the logits are left alone: the model goes on freely.

    Args:
        constraint: the automaton, or one for each row; they write with the same pieces.
        prompt_length: columns of ``input_ids`` that are prompt.
    """

    def __init__(
        self, constraint: PermutationConstraint | Sequence[PermutationConstraint], prompt_length: int
    ) -> None:
        self._one = constraint if isinstance(constraint, PermutationConstraint) else None
        self._constraints = () if isinstance(constraint, PermutationConstraint) else tuple(constraint)
        self.prompt_length = prompt_length
        self.steps: list[dict[int, tuple[list[int], torch.Tensor]]] = []
        self._states: dict[tuple[PermutationConstraint, tuple[int, ...]], State] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return masked logits.

        Args:
            input_ids: (batch, tokens), prompt included.
            scores: (batch, vocabulary).
        """
        masked = scores.clone()
        kept: dict[int, tuple[list[int], torch.Tensor]] = {}
        for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
            allowed = sorted(self._allowed(row, ids))
            if not allowed:
                continue
            # Whatever the logits are, -inf and NaN included, one of the allowed tokens must win.
            values = torch.nan_to_num(scores[row, allowed], nan=torch.finfo(scores.dtype).min)
            masked[row] = -torch.inf
            masked[row, allowed] = values
            kept[row] = allowed, values.float()
        self.steps.append(kept)
        return masked

    def is_forced(self, written: Sequence[Sequence[int]]) -> bool:
        """Tell whether only one token may come next, in every row of the tokens written so far."""
        return all(len(self._allowed(row, ids)) == 1 for row, ids in enumerate(written))

    def constraint(self, row: int) -> PermutationConstraint:
        """Return the automaton of a row."""
        return self._one or self._constraints[row]

    def _allowed(self, row: int, ids: Sequence[int]) -> set[int]:
        constraint = self.constraint(row)
        ids = tuple(ids[: constraint.tokens.longest])  # what follows the list does not matter
        states, known = self._states, len(ids)
        while known and (constraint, ids[:known]) not in states:
            known -= 1
        state = states[constraint, ids[:known]] if known else constraint.start()
        for length in range(known, len(ids)):
            state = states[constraint, ids[: length + 1]] = constraint.advance(state, ids[length])
        return constraint.allowed(state)

    def label_probabilities(self, row: int, ids: Sequence[int]) -> list[float]:
        """Return, for each label of a generated list, its probability among those left at its step.

        Args:
            row: row of the batch (without beam search).
            ids: generated tokens of that row.
        """
        constraint = self.constraint(row)
        state = constraint.start()
        probabilities: list[float] = []
        probability, written = 1.0, 0
        for step, token in enumerate(ids[: constraint.tokens.longest]):
            allowed, values = self.steps[step][row]
            probability *= float(torch.softmax(values, dim=-1)[allowed.index(int(token))])
            state = constraint.advance(state, int(token))
            while written < max(len(path.order) for path in state):
                probabilities.append(probability)
                probability, written = 1.0, written + 1
        return probabilities


def first_label_probabilities(
    tokens: ListTokens, next_logits: Callable[[tuple[int, ...]], torch.Tensor]
) -> list[float]:
    """Return the probability of each label to be written first, under the constraint.

    A number of several tokens has the product of its tokens' probabilities, and one that begins
    another (1 and 10) has the probability to end where it does. They sum to 1.

    Args:
        tokens: the pieces.
        next_logits: from the token ids written after the opening to the logits (vocabulary,) of the next
            token. Called once for ``()``, and once for each beginning that several labels share.
    """
    end = (tokens.separator if len(tokens.labels) > 1 else tokens.closing)[:1]
    paths = [ids + end for ids in tokens.labels]
    probabilities = [1.0] * len(paths)

    # No recursive closure: it would be a cycle around next_logits, which can hold gigabytes of keys and
    # values, until the garbage collector happens to look.
    shared: list[tuple[tuple[int, ...], list[int]]] = [((), list(range(len(paths))))]
    while shared:
        written, labels = shared.pop()
        branches: dict[int, list[int]] = {}
        for label in labels:
            branches.setdefault(paths[label][len(written)], []).append(label)
        logits = torch.nan_to_num(next_logits(written)[list(branches)].double())
        for share, (token, members) in zip(torch.softmax(logits, 0).tolist(), branches.items(), strict=True):
            for label in members:
                probabilities[label] *= share
            if len(members) > 1:
                shared.append(((*written, token), members))
    return probabilities
