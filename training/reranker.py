"""Train the demo's reranker: a tiny Phi-3 Vision.

    python -m training.reranker --output reranker --cache pictures --embedder embedder

Four stages: the vision tower on single cells, on whole sheets; the decoder on its features; and all of it on
lists that the demo's embedder retrieves, in their real order. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .decoder import Questions, Student, question_batch
from .loop import Schedule, Stage, run
from .pictures import draw_products, draw_sources
from .rerank_cases import Cases
from .retrieved import RetrievedLists, retrieved_batch
from .tiny_phi3_vision import make_model, save
from .vision import Eye, sheets_batch

SIZES = (63, 75, 112)
QUERY_SIZES = (63, 224)
STEPS = {"cells": 1500, "sheets": 600, "decoder": 2500, "lists": 500}


def train(args: argparse.Namespace) -> dict[str, object]:
    """Train all stages, save the model, return the report."""
    device = torch.device(args.device)
    products = draw_products(args.cache, args.products, seed=args.seed, sizes=SIZES)
    asked = draw_products(args.cache / "asked", args.asked, seed=args.seed + 1, sizes=QUERY_SIZES)
    sources = draw_sources(args.cache, args.sources, seed=args.seed, sizes=QUERY_SIZES)
    torch.manual_seed(args.seed)
    model, processor = make_model()
    model.to(device)
    eye = Eye(model)
    cases = Cases(products, asked, sources)
    questions = Questions(cases, processor, device)
    student = Student(model, eye, questions.digits).to(device)
    steps = dict(zip(STEPS, args.steps, strict=True))
    stages: list[Stage] = []  # type: ignore[type-arg]

    def go(name: str, rate: float, trained, make_batch, loss) -> None:  # type: ignore[no-untyped-def]
        stage = Stage(name, Schedule(steps[name], rate), trained, make_batch, loss, args.seed)
        stages.append(run(stage, args.output / "checkpoints", save_every=args.save_every))

    go("cells", 1.5e-3, eye, partial(sheets_batch, cases, args.batch_size * 2, 0, device), eye.window_loss)
    go("sheets", 7e-4, eye, partial(sheets_batch, cases, args.batch_size, args.batch_size // 3, device), eye.sheet_loss)
    student.see = False
    batch = partial(question_batch, questions, args.batch_size, args.batch_size // 2)
    for parameter in eye.parameters():
        parameter.requires_grad_(False)
    go("decoder", 1.2e-3, student, batch, student.loss)
    for parameter in eye.parameters():
        parameter.requires_grad_(True)
    student.see = True
    lists = RetrievedLists(args.embedder, cases, args.cache / "retrieved", args.lists, args.seed)
    go("lists", 4e-4, student, partial(retrieved_batch, questions, lists, args.batch_size), student.loss)
    save(model, processor, args.output)
    report = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "numpy": np.__version__,
        "seconds": {stage.name: round(stage.seconds) for stage in stages},
        "curves": {stage.name: stage.curve for stage in stages},
    }
    (args.output / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the model, its checkpoints and report")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the training pictures")
    parser.add_argument("--embedder", type=Path, required=True, help="folder of the trained demo embedder")
    parser.add_argument("--products", type=int, default=30_000)
    parser.add_argument("--asked", type=int, default=6_000, help="products that queries show")
    parser.add_argument("--sources", type=int, default=4_800)
    parser.add_argument("--lists", type=int, default=6_000, help="retrieved lists of the last stage")
    parser.add_argument("--batch-size", type=int, default=12, help="sheets per step")
    parser.add_argument("--steps", type=int, nargs=4, default=list(STEPS.values()), help="of the four stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
