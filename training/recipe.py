"""What the recipes of both parts of the reranker share: their pictures, their stages, their report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .loop import Schedule, Stage, run
from .pictures import draw_nameless, draw_products, draw_sources, draw_things
from .reports import check_arguments, environment, write_report
from .rerank_cases import Cases

ARGUMENTS = ("steps", "batch_size", "seed", "products", "asked", "sources", "distractors")
"""What every recipe's result depends on."""


def recipe_parser(
    description: str | None, *, stages: Sequence[str], steps: Sequence[int], batch_size: int
) -> argparse.ArgumentParser:
    """Return a parser with the options of every recipe, which sets the numbers of pictures.

    Args:
        description: of the recipe.
        stages: names of the stages.
        steps: how many each has.
        batch_size: sheets per step.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of model, checkpoints and report")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the training pictures")
    parser.add_argument("--products", type=int, help="pictures of candidates")
    parser.add_argument("--asked", type=int, help="pictures of products that queries show")
    parser.add_argument("--sources", type=int, help="pictures of patterns' sources")
    parser.add_argument("--distractors", type=int, help="pictures of things, and of nameless patterns")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="sheets per step")
    parser.add_argument(
        "--steps", type=int, nargs=len(stages), default=list(steps), help=f"of {', '.join(stages)}"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes that draw (default: one per processor)")
    parser.add_argument("--save-every", type=int, default=25, help="steps between two savings")
    parser.add_argument("--device", help="torch device (default: the best there is)")
    return parser


def draw_cases(args: argparse.Namespace, *, sizes: Sequence[int], query_sizes: Sequence[int]) -> Cases:
    """Draw all training pictures, or take them from the cache.

    Args:
        args: the command line.
        sizes: pixels of candidates.
        query_sizes: pixels of what queries show.
    """
    drawing: dict[str, Any] = {"workers": args.workers}
    products = draw_products(args.cache, args.products, seed=args.seed, sizes=sizes, **drawing)
    asked = draw_products(args.cache / "asked", args.asked, seed=args.seed + 1, sizes=query_sizes, **drawing)
    sources = draw_sources(args.cache, args.sources, seed=args.seed, sizes=query_sizes, **drawing)
    distractors = [
        draw(args.cache, args.distractors, seed=args.seed, sizes=sizes, **drawing)
        for draw in (draw_things, draw_nameless)
    ]
    return Cases(products, asked, sources, distractors)


def kept_arguments(args: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Return the arguments that the result depends on, and keep them beside the checkpoints.

    Args:
        args: the command line.
        more: names of a recipe's own.

    Raises:
        ValueError: the folder holds a run with others.
    """
    arguments = {name: getattr(args, name) for name in (*ARGUMENTS, *more)}
    check_arguments(args.output / "arguments.json", arguments)
    return arguments


def run_stage(
    args: argparse.Namespace,
    name: str,
    schedule: Schedule,
    trained: nn.Module,
    make_batch: Callable[..., Any],
    loss: Callable[..., Any],
) -> Stage[Any]:
    """Train a stage, or go on with it; see :class:`Stage`."""
    stage = Stage(name, schedule, trained, make_batch, loss, args.seed)
    return run(stage, args.output / "checkpoints", save_every=args.save_every)


def report_stages(
    args: argparse.Namespace,
    arguments: dict[str, Any],
    stages: Sequence[Stage[Any]],
    model: nn.Module,
    device: torch.device,
) -> None:
    """Write what was trained, where, how long and how well."""
    report = {
        "arguments": arguments,
        "environment": environment(str(device)),
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_seconds": {stage.name: round(stage.seconds) for stage in stages},
        "curves": {stage.name: stage.curve for stage in stages},
    }
    write_report(args.output / "report.json", report)
