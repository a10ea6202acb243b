"""The learning rate over a stage, its batches and its curve."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.batch_processes import BatchProcesses
from training.loop import Figures, Schedule, Stage, run
from training.rerank_cases import Cases
from training.vision import sheets_batch


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


def test_processes_make_the_batches_that_a_thread_makes(cases: Cases) -> None:
    makers = {"sheets": partial(sheets_batch, cases, 1, 1)}
    with BatchProcesses(makers, 0) as here, BatchProcesses(makers, 1) as elsewhere:
        own, other = (each["sheets"](np.random.default_rng(5)) for each in (here, elsewhere))
    assert own.views.dtype == torch.uint8
    assert torch.equal(own.views, other.views)
    assert torch.equal(own.labels, other.labels)
    assert own.boxes == other.boxes
    with pytest.raises(RuntimeError, match="with"):
        elsewhere["sheets"](np.random.default_rng(5))


def test_a_mean_leaves_out_what_is_no_number(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(1))

    def loss(step: int) -> tuple[torch.Tensor, Figures]:
        share = torch.tensor(float("nan") if step == 0 else step)
        return weight.sum(), {"share": share, "never": float("nan")}

    steps = iter(range(4))
    module = nn.ParameterList([weight])
    stage = Stage("toy", Schedule(4, 0.0), module, lambda rng: next(steps), loss, seed=0)
    (point,) = run(stage, tmp_path, save_every=4).curve
    assert point == {"step": 4, "loss": 1.0, "share": 2.0}
