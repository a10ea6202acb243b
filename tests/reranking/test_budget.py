"""A budget of model calls: any minute, any threads."""

from __future__ import annotations

import copy
import doctest
import pickle
import threading

import pytest

from llama_index_multimodal_rerank import CallBudget
from llama_index_multimodal_rerank.reranking import budget as budget_module


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_the_example_runs():
    found = doctest.testmod(budget_module)
    assert found.attempted > 0
    assert found.failed == 0


def test_any_minute_not_the_calendars():
    clock = Clock()
    budget = CallBudget(5, clock=clock)
    assert budget.take(3)
    clock.now += 40
    assert budget.take(2)
    assert budget.take(1) is None
    assert budget.take(0)
    clock.now += 19.9
    assert budget.take(1) is None
    clock.now += 0.1  # the three of a minute ago are over, the two are not
    assert budget.used == 2
    assert budget.take(4) is None
    assert budget.take(3)


def test_what_was_really_made_counts_from_when_it_is_known():
    clock = Clock()
    budget = CallBudget(5, 10, clock=clock)
    first, second = budget.take(2), budget.take(1)
    clock.now += 9
    budget.settle([first, second], 5)  # answers were asked for again
    assert budget.used == 5
    clock.now += 9.5
    assert budget.used == 5
    clock.now += 0.5
    assert budget.used == 0
    third = budget.take(5)
    budget.settle([third], 0)  # a caption was known, nothing could be looked at
    assert budget.used == 0


def test_threads_never_take_more_than_there_is():
    budget = CallBudget(100, 3600)
    barrier = threading.Barrier(8)
    taken = []

    def run():
        barrier.wait()
        for _ in range(40):
            reservation = budget.take(1)
            if reservation is not None:
                budget.settle([reservation], 1)
                taken.append(reservation)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == budget.used == 100


def test_copies_share_it_and_another_process_has_its_own():
    budget = CallBudget(7, 30)
    budget.take(7)
    assert copy.copy(budget) is copy.deepcopy(budget) is budget
    other = pickle.loads(pickle.dumps(budget))
    assert (other.calls, other.seconds, other.used) == (7, 30, 0)
    assert repr(other) == "CallBudget(7, seconds=30)"


@pytest.mark.parametrize("calls", [0, -1, 1.5, True])
def test_calls_that_are_none(calls):
    with pytest.raises(ValueError, match="calls must be a whole number, 1 or more"):
        CallBudget(calls)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time(seconds):
    with pytest.raises(ValueError, match="seconds must be above 0"):
        CallBudget(1, seconds)
