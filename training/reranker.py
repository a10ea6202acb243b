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
from .loop import Schedule, Stage, run
from .pictures import draw_nameless, draw_products, draw_sources, draw_things
from .questions import Questions, question_batch
from .reports import check_arguments, environment, write_report
from .rerank_cases import Cases
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
    drawing: dict[str, Any] = {"workers": args.workers}
    products = draw_products(args.cache, args.products, seed=args.seed, sizes=PRODUCT_SIZES, **drawing)
    asked = draw_products(args.cache / "asked", args.asked, seed=args.seed + 1, sizes=QUERY_SIZES, **drawing)
    sources = draw_sources(args.cache, args.sources, seed=args.seed, sizes=QUERY_SIZES, **drawing)
    distractors = [
        draw(args.cache, args.distractors, seed=args.seed, sizes=PRODUCT_SIZES, **drawing)
        for draw in (draw_things, draw_nameless)
    ]
    names = ("steps", "batch_size", "seed", "products", "asked", "sources", "distractors", "lists")
    arguments = {name: getattr(args, name) for name in names}
    check_arguments(args.output / "arguments.json", arguments)

    torch.manual_seed(args.seed)
    model, processor = make_model()
    cases = Cases(products, asked, sources, distractors)
    questions = Questions(cases, processor, device)
    probe = VisionProbe(model)
    student = DecoderProbe(model, probe, questions.digits).to(device)
    stages: list[Stage[Any]] = []

    def go(trained: nn.Module, make_batch: Callable[..., Any], loss: Callable[..., Any]) -> None:
        number = len(stages)
        schedule = Schedule(args.steps[number], LEARNING_RATES[number], steady=STEADY[number])
        stage = Stage(STAGES[number], schedule, trained, make_batch, loss, args.seed)
        stages.append(run(stage, args.output / "checkpoints", save_every=args.save_every))

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
    report = {
        "arguments": arguments,
        "environment": environment(str(device)),
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_seconds": {stage.name: round(stage.seconds) for stage in stages},
        "curves": {stage.name: stage.curve for stage in stages},
    }
    write_report(args.output / "report.json", report)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of model, checkpoints and report")
    parser.add_argument("--embedder", type=Path, required=True, help="folder of the trained demo embedder")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the training pictures")
    parser.add_argument("--products", type=int, default=18_000, help="pictures of candidates")
    parser.add_argument("--asked", type=int, default=4_000, help="pictures of products that queries show")
    parser.add_argument("--sources", type=int, default=4_800, help="pictures of patterns' sources")
    parser.add_argument(
        "--distractors", type=int, default=6_400, help="pictures of things, and of nameless patterns"
    )
    parser.add_argument("--lists", type=int, default=6_000, help="retrieved lists of the last stage")
    parser.add_argument("--batch-size", type=int, default=6, help="sheets per step")
    parser.add_argument(
        "--steps", type=int, nargs=len(STAGES), default=list(STEPS), help=f"of {', '.join(STAGES)}"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes that draw (default: one per processor)")
    parser.add_argument("--save-every", type=int, default=25, help="steps between two savings")
    parser.add_argument("--device", help="torch device (default: the best there is)")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parser.parse_args(argv))


if __name__ == "__main__":
    main()
