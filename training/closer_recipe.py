"""What the recipes of closer looks share: how they begin, what they ask, averaged weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from llama_index_multimodal_rerank.models.hardware import resolve_device
from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)

from .closer_looks import CloserLooks, Sentences
from .questions import QuestionBatch, Questions, told_caption
from .recipe import draw_cases, kept_arguments, recipe_parser
from .rerank_cases import WINDOW
from .tiny_phi3_vision import load
from .vision import Pixels

SIZES = (152,)
"""Pixels of candidates in training: a little more than a large cell shows."""

QUERY_SIZES = (224,)

KEEP = {"labels": 10.0, "words": 0.5, "states": 10.0, "shown": 10.0}
"""Weights of the changes in rankings, where sentences are learnt; see ``Held.answers``."""

PROMPTS = 4
"""Queries about each sheet of nine."""


def closer_parser(
    description: str | None, *, stages: Sequence[str], steps: Sequence[int], made_by: str
) -> argparse.ArgumentParser:
    """Return a parser as :func:`.recipe_parser` does, for a reranker that is there.

    Args:
        description: of the recipe.
        stages: names of the stages.
        steps: how many each has.
        made_by: the recipe that the reranker comes from.
    """
    parser = recipe_parser(description, stages=stages, steps=steps, batch_size=9)
    parser.add_argument("--reranker", required=True, help=f"folder of the model that {made_by} made")
    return parser


@dataclass(frozen=True)
class Start:
    """What a recipe begins with.

    Attributes:
        arguments: what its result depends on.
        device: where it computes.
        model: the reranker, which it changes.
        processor: of the model.
        questions: makes rankings.
        looks: makes reasons and captions.
    """

    arguments: dict[str, Any]
    device: torch.device
    model: Phi3VisionForConditionalGeneration
    processor: Phi3VisionProcessor
    questions: Questions
    looks: CloserLooks


def start(args: argparse.Namespace) -> Start:
    """Draw the pictures, set the seed, load the reranker."""
    device = resolve_device(args.device)
    cases = draw_cases(args, sizes=SIZES, query_sizes=QUERY_SIZES)
    arguments = kept_arguments(args)
    torch.manual_seed(args.seed)
    model, processor = load(args.reranker, device)
    questions, looks = Questions(cases, processor, device), CloserLooks(cases, processor, device)
    return Start(arguments, device, model, processor, questions, looks)


def reasons_batch(
    looks: CloserLooks,
    questions: Questions,
    count: int,
    nine: int,
    sure: Callable[[Pixels], Sequence[bool]] | None,
    rng: np.random.Generator,
) -> tuple[list[Sentences], QuestionBatch]:
    """Make reasons, with a query's picture and without, captions, and rankings of nine.

    Args:
        looks: makes reasons and captions.
        questions: makes rankings.
        count: of reasons with a query's picture; a third as many without, and captions.
        nine: of sheets of nine: the first without a query's picture, the last with distractors.
        sure: see ``CloserLooks.reasons``.
        rng: random numbers.
    """
    few = max(1, count // 3)
    groups = []
    while len(groups) < nine:
        first, *others = looks.cases.draw_group(rng, WINDOW, PROMPTS)
        if (first.picture is None) != (not groups):
            continue
        if len(groups) == nine - 1:
            first = looks.cases.with_distractors(first, rng)
        groups.append([first, *(replace(case, candidates=first.candidates) for case in others)])
    sentences = [
        looks.reasons(count, rng, query=True, sure=sure),
        looks.reasons(few, rng, query=False, sure=sure),
        looks.captions(few, rng),
    ]
    return sentences, questions.rankings(groups, partial(told_caption, rng=rng), rng)


def average(model: nn.Module, before: Mapping[str, torch.Tensor], share: float) -> None:
    """Put weights between those from before and those that a model has now.

    Args:
        model: gets them.
        before: the weights from before.
        share: of the model's own, 0 to 1.
    """
    model.load_state_dict(
        {name: torch.lerp(before[name], value, share) for name, value in model.state_dict().items()}
    )
