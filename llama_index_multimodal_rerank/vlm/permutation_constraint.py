"""The permutation constraint: a decoder under it can only write a complete ranking.

The list is written as ``[3] > [1] > [2]``. Over the tokenizer's real tokenisation of these strings an
automaton follows what was generated and knows which tokens may come next: each label exactly once, then
the end of the answer, or free text for the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, SEPARATOR, CLOSE = "[", "] > [", "]"
REASON = "\nReason:"


@dataclass(frozen=True)
class ListTokens:
    """Token ids of the pieces a ranking is written with.

    Attributes:
        opening: ids before the first label.
        labels: ids of each label; several where a number is.
        separator: ids between two labels.
        closing: ids after the last label.
    """

    opening: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    separator: tuple[int, ...]
    closing: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the whole list, closing included; the same for every order."""
        labels = sum(map(len, self.labels))
        return len(self.opening) + labels + len(self.separator) * (len(self.labels) - 1) + len(self.closing)


def tokenize_list(
    tokenizer: PreTrainedTokenizerBase, num_labels: int, *, context: str, ending: str = ""
) -> ListTokens:
    """Cut the tokenizer's own tokenisation of a ranking into its pieces.

    Args:
        tokenizer: the tokenizer of the model.
        num_labels: labels are 1..num_labels.
        context: the end of the prompt after which the list is written.
        ending: text that follows the list, such as :data:`REASON`.

    Raises:
        ValueError: the tokenizer joins a label with what stands beside it, so that a list cannot be
            put together from pieces.
    """

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(context + text, add_special_tokens=False)["input_ids"]
        return ids

    def rest(text: str, known: Sequence[int]) -> tuple[int, ...]:
        ids = encode(text)
        if ids[: len(known)] != list(known) or len(ids) == len(known):
            raise ValueError(
                f"this tokenizer does not write {text!r} label by label, so its rankings cannot be "
                "constrained; use an unconstrained model interface for this model"
            )
        return tuple(ids[len(known) :])

    names = [str(label) for label in range(1, num_labels + 1)]
    known = encode("")
    opening = rest(OPEN, known)
    known = [*known, *opening]
    labels = tuple(rest(OPEN + name, known) for name in names)
    first = OPEN + names[0]
    separator = rest(first + SEPARATOR, [*known, *labels[0]])
    closing = rest(first + CLOSE + ending, [*known, *labels[0]])
    tokens = ListTokens(opening, labels, separator, closing)
    # Pieces must stay what they are in every company: in order, and backwards.
    for order in (range(num_labels), range(num_labels - 1, -1, -1)):
        text = OPEN + SEPARATOR.join(names[label] for label in order) + CLOSE + ending
        if rest(text, encode("")) != tuple(PermutationConstraint(tokens).write(order)):
            raise ValueError(
                f"this tokenizer writes {text[:60]!r} in other pieces than its labels one by one, so its "
                "rankings cannot be constrained; use an unconstrained model interface for this model"
            )
    return tokens


@dataclass(frozen=True)
class _Path:
    """One way to read what was generated.

    Attributes:
        order: labels written completely, from 0.
        label: the label being written, None at the opening.
        ids: the tokens of this piece with what must follow it.
        done: how many of them were generated.
    """

    order: tuple[int, ...]
    label: int | None
    ids: tuple[int, ...]
    done: int = 0


State = tuple[_Path, ...]
"""All ways to read what was generated: more than one where a label begins like another."""


class PermutationConstraint:
    """Automaton over token ids that accepts the complete rankings and nothing else.

    Args:
        tokens: the pieces, from :func:`tokenize_list`.
        order: accept this order only (to have a known ranking explained), labels from 0.
    """

    def __init__(self, tokens: ListTokens, order: Sequence[int] | None = None) -> None:
        self.tokens = tokens
        self.order = tuple(order) if order is not None else None

    def write(self, order: Iterable[int]) -> list[int]:
        """Return the token ids of a complete ranking, labels from 0."""
        ids = list(self.tokens.opening)
        for place, label in enumerate(order):
            ids += (self.tokens.separator if place else ()) + self.tokens.labels[label]
        return ids + list(self.tokens.closing)

    def start(self) -> State:
        """Return the state before the first token."""
        return (_Path((), None, self.tokens.opening),)

    def allowed(self, state: State) -> set[int]:
        """Return the tokens that may come next; none if the list is complete."""
        return {path.ids[path.done] for path in state if path.done < len(path.ids)}

    def advance(self, state: State, token: int) -> State:
        """Return the state after one more token; the complete list stays as it is.

        Raises:
            ValueError: the token is not allowed.
        """
        if self.complete(state) is not None:
            return state
        following: list[_Path] = []
        for path in state:
            if path.ids[path.done] == token:
                following += self._settle(replace(path, done=path.done + 1))
        if not following:
            raise ValueError(f"token {token} is not allowed here; allowed are {sorted(self.allowed(state))}")
        # A complete list ends all other readings.
        return tuple(path for path in following if path.done == len(path.ids)) or tuple(following)

    def _settle(self, path: _Path) -> list[_Path]:
        """At the end of a piece, branch into every label that may follow."""
        if path.done < len(path.ids):
            return [path]
        order = path.order if path.label is None else (*path.order, path.label)
        if len(order) == len(self.tokens.labels):
            return [replace(path, order=order, label=None)]
        left = [label for label in range(len(self.tokens.labels)) if label not in order]
        if self.order is not None:
            left = [self.order[len(order)]]
        after = self.tokens.separator if len(order) + 1 < len(self.tokens.labels) else self.tokens.closing
        return [_Path(order, label, self.tokens.labels[label] + after) for label in left]

    def complete(self, state: State) -> tuple[int, ...] | None:
        """Return the order, labels from 0, if the list is complete."""
        for path in state:
            if path.done == len(path.ids) and len(path.order) == len(self.tokens.labels):
                return path.order
        return None


@dataclass(frozen=True)
class DecodedList:
    """What was read back from generated tokens.

    Attributes:
        order: labels from 0, best first.
        length: how many tokens the list took.
    """

    order: tuple[int, ...]
    length: int


def read_list(constraint: PermutationConstraint, ids: Sequence[int]) -> DecodedList:
    """Read the ranking at the beginning of generated token ids.

    Raises:
        ValueError: they were not generated under the constraint, or were cut off within the list.
    """
    state = constraint.start()
    for length, token in enumerate(ids, start=1):
        state = constraint.advance(state, int(token))
        order = constraint.complete(state)
        if order is not None:
            return DecodedList(order, length)
    raise ValueError(f"{len(ids)} tokens hold no complete ranking of {len(constraint.tokens.labels)} labels")
