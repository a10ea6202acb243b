"""The learning rate over a stage."""

from __future__ import annotations

import pytest

from training.loop import Schedule


def test_warm_up_then_cosine_to_zero() -> None:
    schedule = Schedule(steps=1000, learning_rate=2.0, warm_up=100)
    assert schedule.at(0) == pytest.approx(0.02)
    assert schedule.at(500) == pytest.approx(1.0)
    assert schedule.at(999) < 1e-4


def test_a_plateau_before_the_fall() -> None:
    schedule = Schedule(steps=1000, learning_rate=2.0, warm_up=100, steady=0.5)
    assert [schedule.at(step) for step in (99, 300, 500)] == [2.0, 2.0, 2.0]
    assert schedule.at(750) == pytest.approx(1.0)
    assert schedule.at(999) < 1e-4


def test_a_short_stage_warms_up_in_a_quarter_of_it() -> None:
    assert Schedule(steps=8, learning_rate=1.0, steady=1 / 2).at(1) == 1.0
