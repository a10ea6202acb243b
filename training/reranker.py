"""Train the demo's reranker: a tiny Phi-3 Vision.

    python -m training.reranker --output reranker --cache pictures --embedder embedder/model

Four stages: the vision tower on single cells, on whole sheets; the decoder on its features; and all of it on
lists that the demo's embedder retrieves, in their real order. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llama_index_multimodal_rerank.models.hardware import resolve_device

from .decoder import DecoderProbe
from .loop import Schedule, Stage
from .questions import Questions, question_batch
from .recipe import draw_cases, kept_arguments, recipe_parser, report_stages, run_stage
from .retrieved import RetrievedLists, retrieved_batch
from .tiny_phi3_vision import make_model, save
from .vision import VisionProbe, sheets_batch

logger = logging.getLogger(__name__)

PRODUCT_SIZES = (63, 75, 112)
QUERY_SIZES = (63, 224)
PROMPTS = 4
"""Queries about each sheet, in the stage that trains the decoder."""

STAGES = ("cells", "sheets", "decoder", "lists")
STEPS = (1400, 3600, 3000, 1000)
LEARNING_RATES = (1.5e-3, 1.2e-3, 1.5e-3, 4e-4)
STEADY = (0.5, 0.5, 0.35, 0.5)
"""Share of a stage before its learning rate falls."""


def train(args: argparse.Namespace) -> None:
    """Train all stages, save the model and the report."""
    device = resolve_device(args.device)
    cases = draw_cases(args, sizes=PRODUCT_SIZES, query_sizes=QUERY_SIZES)
    arguments = kept_arguments(args, "lists")

    torch.manual_seed(args.seed)
    model, processor = make_model()
    questions = Questions(cases, processor, device)
    probe = VisionProbe(model)
    student = DecoderProbe(model, probe, questions.digits).to(device)
    stages: list[Stage[Any]] = []

    def go(trained: nn.Module, make_batch: Callable[..., Any], loss: Callable[..., Any]) -> None:
        number = len(stages)
        schedule = Schedule(args.steps[number], LEARNING_RATES[number], steady=STEADY[number])
        stages.append(run_stage(args, STAGES[number], schedule, trained, make_batch, loss))

    sheets = args.batch_size
    go(probe, partial(sheets_batch, cases, 2 * sheets, 0, device), probe.window_loss)
    batch = partial(sheets_batch, cases, sheets, max(1, sheets // 2), device)
    go(probe, batch, probe.sheet_loss)
    student.freeze_probe(True)
    go(student, partial(question_batch, questions, max(1, sheets // 2), PROMPTS, 1), student.loss)
    student.freeze_probe(False)
    lists = RetrievedLists(args.embedder, cases, args.cache / "retrieved", args.lists, args.seed)
    go(student, partial(retrieved_batch, questions, lists, sheets), student.loss)

    save(model, processor, args.output / "model")
    report_stages(args, arguments, stages, model, device)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = recipe_parser(__doc__, stages=STAGES, steps=STEPS, batch_size=6)
    parser.set_defaults(products=18_000, asked=4_000, sources=4_800, distractors=6_400)
    parser.add_argument("--embedder", type=Path, required=True, help="folder of the trained demo embedder")
    parser.add_argument("--lists", type=int, default=6_000, help="retrieved lists of the last stage")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parser.parse_args(argv))


if __name__ == "__main__":
    main()
