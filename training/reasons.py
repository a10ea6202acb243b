"""Teach the demo's reranker to look closer: to say of the best result, alone on a sheet, what it shows.

    python -m training.reasons --output reasons --cache pictures --reranker reranker/model

Four stages: the vision tower on single large cells, then on their sheets; and, twice, all behind it on
sentences about them, which leave out a surface that is not seen well. Rankings are held to what they were, by
a copy of the model; in the end, weights from before the last stage and after it are averaged. An interrupted
run continues where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from .closer_looks import CloserLooks, Sentences, looking
from .closer_recipe import KEEP, average, closer_parser, reasons_batch, start
from .decoder import DecoderProbe
from .holding import Held
from .loop import Schedule, Stage
from .pictures import NONE
from .questions import QuestionBatch
from .recipe import report_stages, run_stage
from .tiny_phi3_vision import save
from .vision import NUMBERS, Heads, Pixels, Shown, VisionProbe, pool

WINDOWS = {True: 11, False: 20}
"""Patches per side around a picture alone on its sheet, by whether the query has one."""

KEEP_PATCHES = 10.0
"""Weight of the change in the tower's features of sheets of nine."""

SAID = ({"words": 1.0, "looks": 1.0}, {"words": 3.0, "looks": 2.0})
"""Weights of the sentences' words, and of where these look, in the last two stages."""

SURE = 0.92
"""Probability of a surface, as the tower reads it, from which on it is named."""

SHARE = 0.6
"""Of the weights after the last stage; the others are those before it. Between both lie models that rank
better than the last, and say what it says (Wortsman et al., Robust fine-tuning of zero-shot models, 2022).
"""

READ_AFTER = 3
"""Layers after which what is shown is read at every word."""

STAGES = ("large_cells", "large_sheets", "reasons", "more_reasons")
STEPS = (700, 380, 1300, 530)
LEARNING_RATES = (1e-3, 1e-3, 4e-4, 6e-4)
STEADY = (0.4, 0.4, 0.35, 0.3)
"""Share of a stage before its learning rate falls."""


class Student(nn.Module):
    """The model, with heads that read what its tower sees.

    Args:
        model: the reranker.
        held: how it was.
        digits: token ids of the labels 1 to 9.
    """

    def __init__(self, model: Any, held: Held, digits: Sequence[int]) -> None:
        super().__init__()
        self.probe = VisionProbe(model)
        self.whole = DecoderProbe(model, self.probe, digits)
        self.told = Heads(model.config.hidden_size)
        self._held = [held]  # no part of what is trained and saved

    def sure(self, pixels: Pixels) -> list[bool]:
        """Tell of which results on sheets of one the tower reads the surface for sure."""
        with torch.no_grad():
            features = pool(self.probe.patches(pixels.views), pixels)[pixels.numbers != NUMBERS - 1]
            likely = self.probe.heads.heads[1](self.probe.heads.norm(features)).softmax(-1).amax(-1)
        return [each >= SURE for each in likely.tolist()]

    def leave_tower(self) -> None:
        """Leave the vision tower as it is from now on."""
        self.probe.tower.requires_grad_(False)
        self.whole.see = False

    def large_cells(self, batch: Sequence[Pixels]) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of large pictures read one by one, and of the change in sheets of nine."""
        beside, single, alone, nine = batch
        pooled = [
            self.probe.windows(beside, WINDOWS[True]).mean(1),
            self.probe.windows(single, WINDOWS[False]).mean(1),
            self.probe.patches(alone.views).mean(1),
        ]
        return self._seen(pooled, (beside, single, alone), nine)

    def large_sheets(self, batch: Sequence[Pixels]) -> tuple[torch.Tensor, dict[str, float]]:
        """As :meth:`large_cells`, of pictures on their sheets."""
        *shown, nine = batch
        return self._seen([pool(self.probe.patches(each.views), each) for each in shown], shown, nine)

    def _seen(
        self, pooled: Sequence[torch.Tensor], shown: Sequence[Pixels], nine: Pixels
    ) -> tuple[torch.Tensor, dict[str, float]]:
        kept = self._held[0].patches(self.probe.patches(nine.views), nine.views)
        total, figures = KEEP_PATCHES * kept, {"kept_patches": kept.item()}
        for name, features, pixels in zip(("", "single_", "alone_"), pooled, shown, strict=True):
            loss, more = self.probe.heads.loss(features, pixels.labels)
            total = total + loss * len(pixels.labels) / len(shown[0].labels)
            figures |= {f"{name}{key}": value for key, value in more.items()}
        return total, figures

    def reasons(
        self, weights: Mapping[str, float], batch: tuple[list[Sentences], QuestionBatch]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of sentences, of readings on the way to them, and of the change in rankings."""
        sentences, rankings = batch
        total, figures = self._held[0].loss(self.whole, rankings, KEEP)
        for name, asked in zip(("reason", "words", "caption"), sentences, strict=True):
            _, _, hidden, cache = self.whole.read(asked)
            logits = self.whole.model.lm_head(hidden[-1][asked.text != NONE])
            loss, right = asked.loss(logits)
            rows, places = (asked.text != NONE).nonzero(as_tuple=True)
            read, more = self.told.loss(hidden[READ_AFTER][rows, places], asked.result_labels[rows])
            looks = looking(self.whole.model.model, asked, hidden, cache)
            share = len(asked.ids) / len(sentences[0].ids)
            total = total + share * (weights["words"] * loss + read + weights["looks"] * looks)
            figures |= {f"{name}_loss": loss.item(), f"{name}_right": right, f"{name}_looks": looks.item()}
            figures |= {f"{name}_{key}": value for key, value in more.items()}
        return total, figures


def large_batch(
    looks: CloserLooks, count: int, others: int, device: torch.device, rng: np.random.Generator
) -> list[Pixels]:
    """Make sheets of one, beside a query's picture and without, pictures alone, and sheets of nine.

    Args:
        looks: draws them.
        count: of sheets with a query's picture.
        others: of each other kind.
        device: of the tensors.
        rng: random numbers.
    """
    beside, single, alone, nine = (Shown(looks.cases) for _ in range(4))
    looks.add_sheets(beside, count, rng, query=True)
    looks.add_sheets(single, others, rng, query=False)
    looks.add_alone(alone, others, rng)
    for _ in range(others):
        nine.add_sheet(looks.cases.with_distractors(looks.cases.draw(rng), rng), rng)
    return [shown.pixels(device) for shown in (beside, single, alone, nine)]


def train(args: argparse.Namespace) -> None:
    """Train all stages, save the model and the report."""
    begun = start(args)
    model, questions, looks, device = begun.model, begun.questions, begun.looks, begun.device
    student = Student(model, Held(model, questions.digits), questions.digits).to(device)
    stages: list[Stage[Any]] = []

    def go(make_batch: Callable[..., Any], loss: Callable[..., Any]) -> None:
        number = len(stages)
        schedule = Schedule(args.steps[number], LEARNING_RATES[number], steady=STEADY[number])
        stages.append(run_stage(args, STAGES[number], schedule, student, make_batch, loss))

    sheets = args.batch_size
    go(partial(large_batch, looks, 8 * sheets // 3, max(1, sheets // 3), device), student.large_cells)
    go(partial(large_batch, looks, 2 * sheets, max(1, sheets // 2), device), student.large_sheets)
    student.leave_tower()
    batch = partial(reasons_batch, looks, questions, max(1, 2 * sheets // 3), max(2, 5 * sheets // 9))
    go(partial(batch, student.sure), partial(student.reasons, SAID[0]))
    before = copy.deepcopy(model.state_dict())
    batch = partial(reasons_batch, looks, questions, sheets, max(2, 4 * sheets // 9))
    go(partial(batch, student.sure), partial(student.reasons, SAID[1]))

    average(model, before, SHARE)
    save(model, begun.processor, args.output / "model")
    report_stages(args, begun.arguments, stages, model, device)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = closer_parser(__doc__, stages=STAGES, steps=STEPS, made_by="training.reranker")
    parser.set_defaults(products=14_016, asked=2_500, sources=1_600, distractors=5_120)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parser.parse_args(argv))


if __name__ == "__main__":
    main()
