"""Teach the demo's reranker, when it looks closer, to be surer of the kind; all else stays as it is.

    python -m training.kinds --output kinds --cache pictures --reranker reasons/model

One stage for all behind the vision tower. In reasons and captions, the kind is learnt; the other words, and
rankings, are held to what they were, by a copy of the model. In the end, weights from before and after are
averaged. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionForConditionalGeneration

from .closer_looks import Sentences, looking
from .closer_recipe import KEEP, average, closer_parser, reasons_batch, start
from .decoder import DecoderProbe
from .holding import Held
from .loop import Schedule
from .pictures import NONE
from .questions import QuestionBatch
from .recipe import report_stages, run_stage
from .tiny_phi3_vision import save
from .vision import VisionProbe

KEEP_SENTENCES = 3.0
"""Weight of the change in the other words of reasons and captions."""

LEARNT = {"kinds": 1.0, "looks": 2.0}
"""Weights of the kinds' words, and of where words look."""

SHARE = 0.6
"""Of the weights after the stage; the others are those before it."""

STAGES = ("kinds",)
STEPS = (300,)
LEARNING_RATE = 4e-4


class Student(nn.Module):
    """All of the model behind its vision tower.

    Args:
        model: the reranker.
        digits: token ids of the labels 1 to 9.
    """

    def __init__(self, model: Phi3VisionForConditionalGeneration, digits: Sequence[int]) -> None:
        super().__init__()
        held = Held(model, digits)
        self.whole = DecoderProbe(model, VisionProbe(model), digits)
        self.whole.probe.tower.requires_grad_(False)
        self.whole.see = False
        self._held = [held]  # no part of what is trained and saved

    def kinds(
        self, batch: tuple[Sequence[Sentences], QuestionBatch]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of kinds, and of the change in other words and in rankings."""
        sentences, rankings = batch
        (held,) = self._held
        total, figures = held.loss(self.whole, rankings, KEEP)
        for name, asked in zip(("reason", "words", "caption"), sentences, strict=True):
            _, _, hidden, cache = self.whole.read(asked)
            loss, right = asked.loss(self.whole.model.lm_head(hidden[-1][asked.kinds]), asked.kinds)
            looks = looking(self.whole.model.model, asked, hidden, cache)
            others = held.words(self.whole, hidden, asked, (asked.text != NONE) & ~asked.kinds)
            share = len(asked.ids) / len(sentences[0].ids)
            total = total + share * (
                LEARNT["kinds"] * loss + LEARNT["looks"] * looks + KEEP_SENTENCES * others
            )
            figures |= {f"{name}_loss": loss.item(), f"{name}_right": right, f"{name}_looks": looks.item()}
            figures |= {f"{name}_kept": others.item()}
        return total, figures


def train(args: argparse.Namespace) -> None:
    """Train the stage, save the model and the report."""
    begun = start(args)
    model = begun.model
    student = Student(model, begun.questions.digits).to(begun.device)
    before = copy.deepcopy(model.state_dict())
    sheets = args.batch_size
    batch = partial(reasons_batch, begun.looks, begun.questions, sheets, max(2, 4 * sheets // 9), None)
    schedule = Schedule(args.steps[0], LEARNING_RATE, steady=0.3)
    stage = run_stage(args, STAGES[0], schedule, student, batch, student.kinds)

    average(model, before, SHARE)
    save(model, begun.processor, args.output / "model")
    report_stages(args, begun.arguments, [stage], model, begun.device)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = closer_parser(__doc__, stages=STAGES, steps=STEPS, made_by="training.reasons")
    parser.set_defaults(products=8_000, asked=1_500, sources=1_000, distractors=2_500)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parser.parse_args(argv))


if __name__ == "__main__":
    main()
