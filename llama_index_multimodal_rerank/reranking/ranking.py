"""A complete ranking, whatever the model answered: audit and repair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from .answer_labels import Entry
from .answer_parser import parse_answer

OnBadAnswer = Literal["repair", "retry", "keep_order", "raise"]
ON_BAD_ANSWER: tuple[str, ...] = get_args(OnBadAnswer)

_QUOTED_CHARS = 300


class BadAnswerError(ValueError):
    """An answer that does not rank every candidate exactly once.

    Attributes:
        audit: what is wrong with it.
    """

    def __init__(self, audit: Audit) -> None:
        super().__init__(audit)
        self.audit = audit

    def __str__(self) -> str:
        return (
            f"the model's answer is not a ranking of {self.audit.expected} candidates: "
            f"{self.audit.describe()}. It answered {self.audit.answer!r}. Set on_bad_answer to 'repair', "
            "'retry' or 'keep_order' to go on with what there is, or use a local model, whose answers are "
            "constrained."
        )


@dataclass(frozen=True)
class Audit:
    """What an answer got right and wrong, and what was done about it. Labels count from 1.

    Attributes:
        expected: how many candidates there were.
        source: where the order comes from: ``"constraint"`` (a decoder that cannot err),
            ``"first_token"`` (label probabilities), ``"answer"`` (text that was parsed), ``"none"``
            (there was nothing to ask, or no answer).
        listed: entries in the answer's list.
        missing: labels left out.
        duplicates: labels listed again, once per repetition.
        out_of_range: numbers that are no label, 0 among them.
        refused: entries that are no whole numbers, as text.
        conflicting_lists: lists in the answer that contradict each other, if more than one.
        action: ``"none"``, ``"repaired"`` or ``"retrieval_order"``.
        attempts: answers asked for, more than 1 after ``"retry"``; without an answer, how often one was asked
            for.
        error: what went wrong, where there was no answer to audit.
        reason_error: why there is no reason, where the order is known and the call for its reason failed.
        answer: the beginning of the answer, where it was not clean.
        finish_reason: why the answer ends, in the server's words, if it says so.
        refusal: the beginning of the model's or server's words for not answering, if there are any.
    """

    expected: int
    source: Literal["constraint", "first_token", "answer", "none"] = "answer"
    listed: int = 0
    missing: tuple[int, ...] = ()
    duplicates: tuple[int, ...] = ()
    out_of_range: tuple[int, ...] = ()
    refused: tuple[str, ...] = ()
    conflicting_lists: int = 0
    action: Literal["none", "repaired", "retrieval_order"] = "none"
    attempts: int = 1
    error: str | None = None
    reason_error: str | None = None
    answer: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None

    @classmethod
    def of_answer(cls, answer: str, **found: Any) -> Audit:
        """Return an audit with what a server said about an answer, and the answer's beginning if it is bad.

        Args:
            answer: the answer, as an ``Answer`` if its server says more about it.
            found: attributes of the audit.
        """
        refusal = getattr(answer, "refusal", None)
        audit = cls(
            **found,
            finish_reason=getattr(answer, "finish_reason", None),
            refusal=refusal and refusal[:_QUOTED_CHARS],
        )
        return audit if audit.clean else replace(audit, answer=answer[:_QUOTED_CHARS])

    @property
    def clean(self) -> bool:
        """Whether every candidate was listed exactly once and nothing else was."""
        return not (
            self.missing
            or self.duplicates
            or self.out_of_range
            or self.refused
            or self.conflicting_lists
            or self.error
        )

    def describe(self) -> str:
        """Say in one line what is wrong."""
        if self.error:
            return self.error
        if self.refusal:
            return f"it refuses: {self.refusal}"
        ended = f" (finish reason: {self.finish_reason})" if self.finish_reason else ""
        if not self.listed and not self.conflicting_lists:
            return f"it declares no list{ended}"
        findings = [
            (f"{len(self.missing)} left out ({_quote(self.missing)})", self.listed and self.missing),
            (f"{len(self.duplicates)} listed again ({_quote(self.duplicates)})", self.duplicates),
            (f"{len(self.out_of_range)} out of range ({_quote(self.out_of_range)})", self.out_of_range),
            (f"{len(self.refused)} no numbers ({_quote(self.refused)})", self.refused),
            (f"{self.conflicting_lists} lists that contradict each other", self.conflicting_lists),
        ]
        return ("; ".join(text for text, found in findings if found) or "nothing") + ended

    def to_dict(self) -> dict[str, Any]:
        """Return what is worth keeping, as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value not in ((), None) and (name != "conflicting_lists" or value)
        }


def _quote(entries: Sequence[Entry]) -> str:
    shown = ", ".join(str(entry) for entry in entries[:8])
    return shown if len(entries) <= 8 else f"{shown}, …"


@dataclass(frozen=True)
class Ranking:
    """A complete order of n candidates. Checked when made.

    Attributes:
        order: candidate indices from 0, best first; each exactly once.
        scores: score of the candidate at the same place of ``order``, from 1 down to 0, never
            rising down the list. What they mean: :func:`cumulative_scores`, :func:`rank_scores` and
            ``docs/reranking.md``.
        reason: why the first is first, in the model's words, or None.
        audit: how the order came about.
        confidence: agreement of several orders, 0 to 1, or None if there was one only.

    Raises:
        ValueError: ``order`` is not a permutation, or ``scores`` rise or are not finite.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    reason: str | None
    audit: Audit
    confidence: float | None = None

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"order must hold each of 0..{len(self.order) - 1} once, got {self.order}")
        if len(self.scores) != len(self.order):
            raise ValueError(f"{len(self.order)} candidates, but {len(self.scores)} scores")
        if not all(map(math.isfinite, self.scores)):
            raise ValueError(f"scores must be finite, got {self.scores}")
        if any(later > earlier for earlier, later in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError(f"scores must not rise down the list, got {self.scores}")


def rank_scores(n: int) -> tuple[float, ...]:
    """Return n, n-1 … 1 over n: scores that say no more than the order does."""
    return tuple((n - position) / n for position in range(n))


def cumulative_scores(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Make the step probabilities of a decoded list monotone.

    Args:
        probabilities: at each step, the probability of the label chosen among those left.

    Returns:
        Their running product: the probability the model gives to the list down to this place.
    """
    scores: list[float] = []
    for probability in probabilities:
        scores.append((scores[-1] if scores else 1.0) * min(max(probability, 0.0), 1.0))
    return tuple(scores)


def audit_entries(entries: Sequence[Entry], n: int, answer: str, *, conflicting_lists: int = 0) -> Audit:
    """Count what is wrong with a list of labels 1..n.

    Args:
        entries: the list.
        n: how many labels there are.
        answer: the answer that has it.
        conflicting_lists: lists in the answer that contradict each other, if more than one.
    """
    numbers = [entry for entry in entries if isinstance(entry, int)]
    valid = [number for number in numbers if 1 <= number <= n]
    seen: set[int] = set()
    duplicates = [number for number in valid if number in seen or seen.add(number)]  # type: ignore[func-returns-value]
    return Audit.of_answer(
        answer,
        expected=n,
        listed=len(entries),
        missing=tuple(label for label in range(1, n + 1) if label not in seen),
        duplicates=tuple(duplicates),
        out_of_range=tuple(number for number in numbers if not 1 <= number <= n),
        refused=tuple(entry for entry in entries if isinstance(entry, str)),
        conflicting_lists=conflicting_lists,
    )


def repair(entries: Sequence[Entry], n: int) -> tuple[int, ...]:
    """Keep each label's first valid occurrence, then append the missing ones in their given order.

    Returns:
        A permutation of 0..n-1.
    """
    listed = [entry - 1 for entry in entries if isinstance(entry, int) and 1 <= entry <= n]
    return tuple(dict.fromkeys([*listed, *range(n)]))


def retrieval_order(n: int, *, error: str | None = None, attempts: int | None = None) -> Ranking:
    """Return the order as it was, where nothing was asked or no answer was had.

    Args:
        n: how many candidates there are.
        error: why there is no answer, if one was wanted.
        attempts: how often an answer was asked for. Default: once if there is an error, else never.
    """
    audit = Audit(
        expected=n,
        source="none",
        action="retrieval_order" if error else "none",
        attempts=int(error is not None) if attempts is None else attempts,
        error=error,
    )
    return Ranking(tuple(range(n)), rank_scores(n), None, audit)


def apply_policy(ranking: Ranking, audit: Audit, *, keep_order: bool) -> Ranking:
    """Return what becomes of a ranking whose audit is not clean.

    Args:
        ranking: what was found, completed.
        audit: what is wrong with it.
        keep_order: rather keep the retrieval order.
    """
    # Without one valid entry the order is the old one under either policy, and so is not said to be repaired.
    if keep_order or len(audit.missing) == audit.expected:
        n = audit.expected
        return Ranking(tuple(range(n)), rank_scores(n), None, replace(audit, action="retrieval_order"))
    return replace(ranking, audit=replace(audit, action="repaired"))


def ranking_from_answer(text: str, n: int, *, on_bad_answer: OnBadAnswer = "repair") -> Ranking:
    """Read a ranking of n candidates from a model's free text.

    Args:
        text: the answer, as an ``Answer`` if its server says more about it. Only its declared list is read,
            see :mod:`.answer_parser`. Scores it may give are not: they can contradict its order.
        n: how many candidates there are, labelled 1..n.
        on_bad_answer: what to do with an answer that does not list each label once: ``"repair"``
            (see :func:`repair`), ``"keep_order"`` (0..n-1), ``"raise"``, or ``"retry"``, which raises
            here: the caller is the one to ask again.

    Raises:
        BadAnswerError: the answer is not clean and ``on_bad_answer`` is ``"raise"`` or ``"retry"``.
        ValueError: ``on_bad_answer`` is none of its values.
    """
    if on_bad_answer not in ON_BAD_ANSWER:
        raise ValueError(f"on_bad_answer must be one of {ON_BAD_ANSWER}, got {on_bad_answer!r}")
    parsed = parse_answer(text)
    audit = audit_entries(parsed.entries, n, text, conflicting_lists=parsed.lists if parsed.lists > 1 else 0)
    ranking = Ranking(repair(parsed.entries, n), rank_scores(n), parsed.reason, audit)
    if audit.clean:
        return ranking
    if on_bad_answer in ("raise", "retry"):
        raise BadAnswerError(audit)
    return apply_policy(ranking, audit, keep_order=on_bad_answer == "keep_order")
