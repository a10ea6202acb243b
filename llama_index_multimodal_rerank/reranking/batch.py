"""What comes of many queries, of which some may have failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.schema import NodeWithScore, QueryBundle

from ..vlm.protocols import AsyncModel, VisionLanguageModel
from ..vlm.retry_budget import RetryBudget, shared_budget

BATCH_SIZE = 8
"""Queries whose pictures are in memory together."""

MIN_RETRIES = 10
"""Retries that the queries of a small batch share; of a large one it is one for five queries."""


class RerankBatchError(RuntimeError):
    """Some queries of a batch failed; the others were reranked.

    Attributes:
        results: what was reranked, in the order of the queries; None where one failed.
        errors: what went wrong, by the index of the query.
    """

    def __init__(self, results: Sequence[list[NodeWithScore] | None], errors: dict[int, Exception]) -> None:
        first = min(errors)
        super().__init__(
            f"{len(errors)} of {len(results)} queries failed, the first of them query {first}: "
            f"{errors[first]}. "
            "The others are in this error's results; on_error='keep_order' keeps the order of failed ones"
        )
        self.results, self.errors = list(results), dict(errors)


Asked = tuple[Sequence[NodeWithScore], QueryBundle]
Result = list[NodeWithScore] | Exception


def check_batch_size(batch_size: int) -> None:
    """Check it.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more queries, got {batch_size}")


def parts(
    queries: Sequence[Asked], batch_size: int, *, model: VisionLanguageModel
) -> Iterator[Sequence[Asked]]:
    """Yield the queries in parts that are worked on one after the other.

    A model of a server is given all at once, and ``batch_size`` of them are under way.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    check_batch_size(batch_size)
    size = max(1, len(queries)) if isinstance(model, AsyncModel) else batch_size
    for start in range(0, len(queries), size):
        yield queries[start : start + size]


def retry_budget(num_queries: int, retries: int | None, *, model: VisionLanguageModel) -> RetryBudget | None:
    """Return the retries that queries share; None for a model that is no server's.

    Without a number, a batch that is part of another one takes from the other's.

    Raises:
        ValueError: ``retries`` is below 0, or is given for a model that is no server's.
    """
    if isinstance(model, AsyncModel):
        if retries is None and (shared := shared_budget()) is not None:
            return shared
        return RetryBudget(max(MIN_RETRIES, num_queries // 5) if retries is None else retries)
    if retries is not None:
        raise ValueError(
            f"retries={retries} is for models of a server, which {type(model).__name__} is not; leave it out"
        )
    return None


def progress_bar(total: int, show: bool | None) -> Any:
    """Return a progress bar over queries, to be used in a ``with`` statement; None: on a terminal only."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="Reranking queries", disable=None if show is None else not show)


def all_results(results: Sequence[Result]) -> list[list[NodeWithScore]]:
    """Return the results, if there are no exceptions among them.

    Raises:
        RerankBatchError: there are.
    """
    errors = {number: each for number, each in enumerate(results) if isinstance(each, Exception)}
    ranked = [None if isinstance(each, Exception) else each for each in results]
    if errors:
        raise RerankBatchError(ranked, errors) from errors[min(errors)]
    return [each for each in ranked if each is not None]


@contextmanager
def failures_of_batch() -> Iterator[list[Result]]:
    """Have the list that is yielded hold results and exceptions, if a batch fails in it."""
    results: list[Result] = []
    try:
        yield results
    except RerankBatchError as error:
        results[:] = [
            error.errors[number] if each is None else each for number, each in enumerate(error.results)
        ]
