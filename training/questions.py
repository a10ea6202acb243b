"""What the reranker's decoder is asked in training, and what it should answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import DemoQuery, describe
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionProcessor

from .held_out_words import HeldOutWords
from .pictures import NONE
from .rerank_cases import (
    Case,
    Cases,
    any_order,
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

EXPLAINED = 0.5
"""Share of rankings with a reason."""

ANY_ORDER = 0.1
"""Share of these whose list is in any order: a reason is about the first that was written, be it good or not.
They teach nothing about ranking."""

TELLING = 4.0
"""Weight of the words that name a place, a kind or a surface. The others are the same in all answers."""

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
        weights: (prompts, tokens), how much each of these counts.
        barred: (words, 3), prompt, position and a token that is not learnt against there.
        cases: of rankings, without their pictures; empty for captions.
        listed: (prompts, 9), positions of the labels in the prompt, or -1.
        written: (prompts, 9), positions of the labels in the answer, or -1.
        wanted_at: (prompts,), the position before the labels.
        reason_at: (prompts,), the position before the label that a reason names, or -1.
        orders: of rankings, labels from 0 as written.
        sorted: (prompts,), whether these have the best label first.
    """

    pixels: Pixels
    prefix: torch.Tensor
    ids: torch.Tensor
    text: torch.Tensor
    weights: torch.Tensor
    barred: torch.Tensor
    cases: list[Case]
    listed: torch.Tensor
    written: torch.Tensor
    wanted_at: torch.Tensor
    reason_at: torch.Tensor
    orders: list[list[int]]
    sorted: torch.Tensor

    def to(self, device: torch.device) -> QuestionBatch:
        """Return the same on a device."""
        moved = {
            each.name: value.to(device)
            for each in fields(self)
            if isinstance(value := getattr(self, each.name), torch.Tensor | Pixels)
        }
        return replace(self, **moved)


class Questions:
    """Makes batches of prompts with answers.

    Args:
        cases: draws queries and candidates.
        processor: of the model.
    """

    def __init__(self, cases: Cases, processor: Phi3VisionProcessor) -> None:
        self.cases, self.processor = cases, processor
        tokenizer = processor.tokenizer

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

        self._in_captions = HeldOutWords(encode, surfaces=True)
        self._in_reasons = HeldOutWords(encode, surfaces=False)
        self.digits: list[int] = tokenizer.convert_tokens_to_ids([str(label) for label in range(1, 10)])

    def rankings(
        self,
        groups: Sequence[Sequence[Case]],
        told: Callable[[Case], str | None],
        rng: np.random.Generator,
        *,
        hiding: float = 0.0,
    ) -> QuestionBatch:
        """Ask for rankings, a part of them with a reason.

        Args:
            groups: cases that share a sheet, equally many for each.
            told: the caption that a prompt tells.
            rng: random numbers.
            hiding: share of sheets on which things of no kind stand in for some candidates, and others hide
                their outline: a reason has to make do with what was asked for then, and nothing is taught
                about ranking.
        """
        shown = Shown(self.cases)
        texts, answers, orders, in_order = [], [], [], []
        for group in groups:
            hide = bool(rng.random() < hiding)
            first = self.cases.with_things(group[0], rng) if hide else group[0]
            shown.add_sheet(first, rng, hide=hide)
            for case in group:
                explain = hide or bool(rng.random() < EXPLAINED)
                best_first = hide or not explain or bool(rng.random() >= ANY_ORDER)
                order = (best_order if best_first else any_order)(case, rng)
                in_order.append(best_first and not hide)
                texts.append(rank_prompt(case.query, len(case.looks), caption=told(case), explain=explain))
                answers.append(rank_answer(order) + (reason_answer(case, order[0]) if explain else ""))
                orders.append(order)
        cases = [replace(case, picture=None, candidates=()) for group in groups for case in group]
        described = [case.looks[order[0]] for case, order in zip(cases, orders, strict=True)]
        return self._asked(shown.pixels(), texts, answers, described, cases, orders, in_order)

    def captions(self, pictures: Sequence[Pick], queries: Sequence[DemoQuery]) -> QuestionBatch:
        """Ask for captions of the queries' pictures."""
        shown = Shown(self.cases)
        for pick in pictures:
            shown.add_alone(pick)
        texts, answers = [caption_prompt()] * len(queries), [caption_answer(query) for query in queries]
        return self._asked(shown.pixels(), texts, answers, [query.picture for query in queries])

    def _asked(
        self,
        pixels: Pixels,
        texts: Sequence[str],
        answers: Sequence[str],
        described: Sequence[Look | str | None],
        cases: Sequence[Case] = (),
        orders: Sequence[list[int]] = (),
        in_order: Sequence[bool] = (),
    ) -> QuestionBatch:
        prompts = [
            f"<|user|>\n<|image_1|>\n{text}{END}\n{ASSISTANT}{answer}{END}"
            for text, answer in zip(texts, answers, strict=True)
        ]
        inputs = self.processor(text=prompts, image_sizes=[[[TILE, TILE]]] * len(prompts))
        rows = [
            ids[mask == 1] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        start = int((rows[0] < 0).nonzero()[-1]) + 1
        prefix = rows[0][:start]
        ids = nn.utils.rnn.pad_sequence([row[start:] for row in rows], batch_first=True)
        text = torch.full_like(ids, NONE)
        listed = torch.full((len(ids), 9), -1)
        written = torch.full((len(ids), 9), -1)
        reason_at = torch.full((len(ids),), -1)
        weights = torch.ones(ids.shape)
        barred: list[tuple[int, int, int]] = []
        digits = torch.tensor(self.digits)
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            tokens = row[start:]
            free = len(tokens) - self._length(f"{answer}{END}")
            if cases:
                n = len(orders[number])
                places = torch.isin(tokens, digits).nonzero()[:, 0]
                listed[number, :n] = places[places < free][-n:]
                answered = places[places >= free]
                written[number, :n] = answered[:n]
                free = int(written[number, n - 1]) + 1
                if len(answered) > n:
                    reason_at[number] = answered[n] - 1
                    weights[number, reason_at[number]] = TELLING
            text[number, free - 1 : len(tokens) - 1] = tokens[free:]
            look, words = described[number], self._in_reasons if cases else self._in_captions
            if isinstance(look, Look) and (not cases or reason_at[number] >= 0):
                told = len(tokens) - 2 - words.length(look.kind, look.surface)
                weights[number, told : len(tokens) - 2] = TELLING
                barred += [
                    (number, told + place, token) for place, token in words.barred(look.kind, look.surface)
                ]
        wanted_at = (listed[:, 0] - 2) if cases else torch.full((len(ids),), -1)
        return QuestionBatch(
            pixels,
            prefix,
            ids,
            text,
            weights,
            torch.tensor(barred, dtype=torch.long).reshape(-1, 3),
            list(cases),
            listed,
            written,
            wanted_at,
            reason_at,
            list(orders),
            torch.tensor(in_order, dtype=torch.bool),
        )

    def _length(self, answer: str) -> int:
        """Return the number of tokens of an answer."""
        encode = self.processor.tokenizer
        whole, start = (
            encode(text, add_special_tokens=False)["input_ids"] for text in (ASSISTANT + answer, ASSISTANT)
        )
        return len(whole) - len(start)


def question_batch(
    questions: Questions,
    sheets: int,
    prompts: int,
    captions: int,
    rng: np.random.Generator,
    *,
    hiding: float = 0.0,
) -> list[QuestionBatch]:
    """Make a batch of rankings and captions with random cases.

    Args:
        questions: makes them.
        sheets: number of sheets.
        prompts: different queries about each.
        captions: number of captions.
        rng: random numbers.
        hiding: see :meth:`Questions.rankings`.
    """
    n = some_count(rng)  # the same for all: little padding
    groups = [questions.cases.draw_group(rng, n, prompts) for _ in range(sheets)]
    return [
        questions.rankings(groups, partial(told_caption, rng=rng), rng, hiding=hiding),
        caption_batch(questions, captions, rng),
    ]


def caption_batch(questions: Questions, count: int, rng: np.random.Generator) -> QuestionBatch:
    """Make a batch of captions of queries' pictures."""
    pictures, queries = [], []
    for _ in range(count):
        query, picture = questions.cases.pictured_query(rng)
        pictures.append(picture.changed(rng))
        queries.append(query)
    return questions.captions(pictures, queries)


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
