"""What the reranker's decoder is asked in training, and what it should answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import describe
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionProcessor

from .pictures import NONE
from .rerank_cases import (
    Case,
    Cases,
    best_order,
    caption_answer,
    caption_prompt,
    rank_answer,
    rank_prompt,
    reason_answer,
    some_count,
)
from .sheets import TILE, Pick
from .vision import Pixels, Shown

END = "<|end|>"
ASSISTANT = "<|assistant|>\n"


@dataclass
class QuestionBatch:
    """A batch of prompts with their answers, the same number about every view.

    Attributes:
        pixels: the views, and what is on them.
        prefix: (tokens,), how all prompts begin, -1 where the picture stands; up to its end.
        ids: (prompts, tokens), how they go on, padded on the right; view by view.
        text: (prompts, tokens), the tokens to be written, as targets of the position before; -100 elsewhere.
        cases: of rankings; empty for captions.
        listed: (prompts, 9), positions of the labels in the prompt, or -1.
        written: (prompts, 9), positions of the labels in the answer, or -1.
        wanted_at: (prompts,), the position before the labels.
        orders: of rankings, labels from 0 as written.
    """

    pixels: Pixels
    prefix: torch.Tensor
    ids: torch.Tensor
    text: torch.Tensor
    cases: list[Case]
    listed: torch.Tensor
    written: torch.Tensor
    wanted_at: torch.Tensor
    orders: list[list[int]]


class Questions:
    """Makes batches of prompts with answers.

    Args:
        cases: draws queries and candidates.
        processor: of the model.
        device: of the tensors.
    """

    def __init__(self, cases: Cases, processor: Phi3VisionProcessor, device: torch.device) -> None:
        self.cases, self.processor, self.device = cases, processor, device
        tokenizer = processor.tokenizer
        self.digits: list[int] = tokenizer.convert_tokens_to_ids([str(label) for label in range(1, 10)])

    def rankings(
        self, groups: Sequence[Sequence[Case]], told: Callable[[Case], str | None], rng: np.random.Generator
    ) -> QuestionBatch:
        """Ask for rankings, half of them with a reason.

        Args:
            groups: cases that share a sheet, equally many for each.
            told: the caption that a prompt tells.
            rng: random numbers.
        """
        shown = Shown(self.cases)
        texts, answers, orders = [], [], []
        for group in groups:
            shown.add_sheet(group[0], rng)
            for case in group:
                explain = bool(rng.random() < 0.5)
                order = best_order(case, rng)
                texts.append(rank_prompt(case.query, len(case.looks), caption=told(case), explain=explain))
                answers.append(rank_answer(order) + (reason_answer(case, order[0]) if explain else ""))
                orders.append(order)
        cases = [case for group in groups for case in group]
        return self._asked(shown.pixels(self.device), texts, answers, cases, orders)

    def captions(self, pictures: Sequence[Pick], answers: Sequence[str]) -> QuestionBatch:
        """Ask for captions of pictures."""
        shown = Shown(self.cases)
        for pick in pictures:
            shown.add_alone(pick)
        texts = [caption_prompt()] * len(answers)
        return self._asked(shown.pixels(self.device), texts, list(answers), [], [])

    def _asked(
        self, pixels: Pixels, texts: list[str], answers: list[str], cases: list[Case], orders: list[list[int]]
    ) -> QuestionBatch:
        prefix, rows, ids = tokenized(self.processor, texts, answers)
        text = torch.full_like(ids, NONE)
        listed = torch.full((len(ids), 9), -1)
        written = torch.full((len(ids), 9), -1)
        digits = torch.tensor(self.digits)
        for number, (tokens, answer) in enumerate(zip(rows, answers, strict=True)):
            free = len(tokens) - self._length(f"{answer}{END}")
            if cases:
                n = len(orders[number])
                places = torch.isin(tokens, digits).nonzero()[:, 0]
                listed[number, :n] = places[places < free][-n:]
                written[number, :n] = places[places >= free][:n]
                free = int(written[number, n - 1]) + 1
            text[number, free - 1 : len(tokens) - 1] = tokens[free:]
        wanted_at = (listed[:, 0] - 2) if cases else torch.full((len(ids),), -1)
        tensors = (tensor.to(self.device) for tensor in (prefix, ids, text))
        places = (tensor.to(self.device) for tensor in (listed, written, wanted_at))
        return QuestionBatch(pixels, *tensors, cases, *places, orders)

    def _length(self, answer: str) -> int:
        """Return the number of tokens of an answer."""
        encode = self.processor.tokenizer
        whole, start = (
            encode(text, add_special_tokens=False)["input_ids"] for text in (ASSISTANT + answer, ASSISTANT)
        )
        return len(whole) - len(start)


def tokenized(
    processor: Phi3VisionProcessor, prompts: Sequence[str], answers: Sequence[str]
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Return prompts about one picture each, with their answers, as the model reads them.

    Args:
        processor: of the model.
        prompts: the questions.
        answers: what should be written.

    Returns:
        How all begin, up to the end of the picture, (tokens,); how each goes on; and the same padded on the
        right, (prompts, tokens).
    """
    texts = [
        f"<|user|>\n<|image_1|>\n{prompt}{END}\n{ASSISTANT}{answer}{END}"
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    inputs = processor(text=texts, image_sizes=[[[TILE, TILE]]] * len(texts))
    rows = [ids[mask == 1] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    start = int((rows[0] < 0).nonzero()[-1]) + 1
    after = [row[start:] for row in rows]
    return rows[0][:start], after, nn.utils.rnn.pad_sequence(after, batch_first=True)


def question_batch(
    questions: Questions, sheets: int, prompts: int, captions: int, rng: np.random.Generator
) -> list[QuestionBatch]:
    """Make a batch of rankings and captions with random cases.

    Args:
        questions: makes them.
        sheets: number of sheets.
        prompts: different queries about each.
        captions: number of captions.
        rng: random numbers.
    """
    n = some_count(rng)  # the same for all: little padding
    groups = [questions.cases.draw_group(rng, n, prompts) for _ in range(sheets)]
    return [
        questions.rankings(groups, partial(told_caption, rng=rng), rng),
        caption_batch(questions, captions, rng),
    ]


def caption_batch(questions: Questions, count: int, rng: np.random.Generator) -> QuestionBatch:
    """Make a batch of captions of queries' pictures."""
    pictures, answers = [], []
    for _ in range(count):
        query, picture = questions.cases.pictured_query(rng)
        pictures.append(picture.changed(rng))
        answers.append(caption_answer(query))
    return questions.captions(pictures, answers)


def told_caption(case: Case, rng: np.random.Generator) -> str | None:
    """Return the caption that a prompt tells: of sources the right one, of products often a wrong one.

    A product alone on a view is read less well than in a cell, so its caption must not be trusted more than
    the picture on the sheet.
    """
    shown = case.query.picture
    if shown is None or rng.random() < 0.12:
        return None
    if isinstance(shown, Look):
        kind, surface, colour = (
            names[int(rng.integers(len(names)))] if rng.random() < wrong else name
            for name, names, wrong in (
                (shown.kind, KINDS, 0.3),
                (shown.surface, SURFACES, 0.3),
                (shown.colour, COLOURS, 0.03),
            )
        )
        return f"{describe(Look(kind, surface, colour))}."
    return caption_answer(case.query)
