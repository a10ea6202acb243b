"""The reranker's closer looks: the best result alone on a sheet with the query, and a sentence about it.

A picture there has 138 pixels, 270 where the query has none, and not the 63 it has among nine. So the tower
first learns to read single pictures of that size; then everything learns to write sentences about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Cache

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import SURFACE_WORDS, describe
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionProcessor
from llama_index_multimodal_rerank.models.phi3_vision.modeling_phi3_vision import Phi3VisionModel
from llama_index_multimodal_rerank.reranking.prompts import DEFAULT_REASON_PROMPT, query_variables

from .attention_supervision import attention_loss, places_of
from .held_out_words import HeldOutWords
from .pictures import NONE
from .questions import tokenized, told_caption
from .rerank_cases import STRANGERS, Case, Cases, caption_prompt
from .sheets import Pick
from .vision import NUMBERS, SOURCE, Pixels, Shown, labels_of

KIND = 1
"""Which piece of an answer is the kind."""

LOOKING = (1, 2)
"""Layers whose heads are told to look from the words at what they are about."""


@dataclass
class Sentences:
    """Prompts about views, one each, with what is to be written.

    Attributes:
        pixels: the views, and what is on them.
        prefix: (tokens,), how all prompts begin, -1 where the picture stands; up to its end.
        ids: (prompts, tokens), how they go on, padded on the right.
        text: (prompts, tokens), the tokens to be written, as targets of the position before; -100 elsewhere,
            and for words that the picture does not tell.
        kinds: (prompts, tokens), which of these targets are a kind's.
        barred: (n, 3), prompt, position and token: what leads to held-out pairs alone.
    """

    pixels: Pixels
    prefix: torch.Tensor
    ids: torch.Tensor
    text: torch.Tensor
    kinds: torch.Tensor
    barred: torch.Tensor

    @property
    def result_labels(self) -> torch.Tensor:
        """Kind, surface and colour of what each answer is about, (prompts, 3); -100 where there is none."""
        return self.pixels.labels[self.pixels.numbers != NUMBERS - 1]

    def loss(self, logits: torch.Tensor, at: torch.Tensor | None = None) -> tuple[torch.Tensor, float]:
        """Return the cross entropy of words, and the share of right ones.

        Args:
            logits: of the positions asked for, row by row, (targets, vocabulary).
            at: (prompts, tokens), positions that have a target. Default: all of them.
        """
        at = self.text != NONE if at is None else at
        number = torch.full_like(self.text, NONE)
        number[at] = torch.arange(int(at.sum()), device=at.device)
        rows = number[self.barred[:, 0], self.barred[:, 1]]
        barred = torch.zeros_like(logits, dtype=torch.bool)
        barred[rows[rows != NONE], self.barred[rows != NONE, 2]] = True
        logits, wanted = logits.masked_fill(barred, -1e4), self.text[at]
        if not len(wanted):
            return logits.sum(), math.nan  # a mean of nothing would make the loss of a step no number
        return F.cross_entropy(logits, wanted), (logits.argmax(-1) == wanted).float().mean().item()


class CloserLooks:
    """Makes batches of closer looks.

    Args:
        cases: draws queries and pictures.
        processor: of the model.
        device: of the tensors.
    """

    def __init__(self, cases: Cases, processor: Phi3VisionProcessor, device: torch.device) -> None:
        self.cases, self.processor, self.device = cases, processor, device
        self._barred = HeldOutWords(self._encode)

    def add_sheets(self, shown: Shown, count: int, rng: np.random.Generator, *, query: bool) -> list[Case]:
        """Draw sheets of one result each, some of them distractors, outline or surface of some hidden.

        Args:
            shown: gets the sheets.
            count: number of sheets.
            rng: random numbers.
            query: whether queries have a picture.
        """
        cases = []
        for _ in range(count):
            asked, picture = self.cases.pictured_query(rng) if query else self._query_in_words(rng)
            result = self.picture(rng)
            # What is found has little to do with what is asked for here: a sentence is about what is seen.
            case = Case(asked, picture, (result,), ())
            shown.add_results([result], picture and picture.changed(rng, hide=True))
            cases.append(case)
        return cases

    def add_alone(self, shown: Shown, count: int, rng: np.random.Generator) -> list[Pick]:
        """Draw pictures that fill a view: what queries show and what they find, in turn."""
        picks = []
        for number in range(count):
            pick = self.picture(rng)
            if number % 2 == 0:
                pick = self.cases.pictured_query(rng)[1].changed(rng, hide=True)
            shown.add_alone(pick)
            picks.append(pick)
        return picks

    def picture(self, rng: np.random.Generator) -> Pick:
        """Draw a result, and how it is shown."""
        if rng.random() < STRANGERS:
            pick = self.cases.distractor(rng)
        else:
            pick = Pick(self.cases.products, int(rng.integers(len(self.cases.products))))
        return pick.changed(rng, hide=True)

    def _query_in_words(self, rng: np.random.Generator) -> tuple[object, None]:
        while True:
            query, picture = self.cases.query(rng)
            if picture is None:
                return query, None

    def reasons(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        query: bool,
        sure: Callable[[Pixels], Sequence[bool]] | None = None,
    ) -> Sentences:
        """Ask why results are the best; the answers say what they show.

        Args:
            count: number of sheets.
            rng: random numbers.
            query: whether queries have a picture.
            sure: tells of which results the surface can be seen well enough to be named. Default: of all.
        """
        shown = Shown(self.cases)
        cases = self.add_sheets(shown, count, rng, query=query)
        prompts = [reason_prompt(case, told_caption(case, rng)) for case in cases]
        pixels = shown.pixels(self.device)
        named = [True] * count if sure is None else sure(pixels)
        answers = [
            self._answer("[1] fits best: ", case.candidates[0], rng, surface_named=name)
            for case, name in zip(cases, named, strict=True)
        ]
        return self._asked(pixels, prompts, answers)

    def captions(self, count: int, rng: np.random.Generator) -> Sentences:
        """Ask what pictures show that fill a view: half of them what queries show, half what they find."""
        shown = Shown(self.cases)
        answers = [self._answer("", pick, rng) for pick in self.add_alone(shown, count, rng)]
        return self._asked(shown.pixels(self.device), [caption_prompt()] * count, answers)

    def _answer(
        self, start: str, pick: Pick, rng: np.random.Generator, *, surface_named: bool = True
    ) -> Answer:
        """Return the description of a picture; what cannot be seen of it is made up, and not asked for."""
        kind, surface, colour = labels_of(pick, self.cases)
        if kind == SOURCE:
            words = f"{start}{describe(SURFACES[pick.drawn.labels[pick.index][0]])}."
            return Answer([(words, surface != NONE)], [])
        look = Look(
            KINDS[kind if kind != NONE else int(rng.integers(len(KINDS)))],
            SURFACES[surface if surface != NONE else int(rng.integers(len(SURFACES)))],
            COLOURS[colour],
        )
        first = f"{start}{describe(look).split(f' {look.kind} ', 1)[0]}"
        pieces = [(first, True), (f" {look.kind}", kind != NONE)]
        if surface_named:
            pieces += [(" with", True), (f" {SURFACE_WORDS[look.surface][0]}", surface != NONE)]
        barred = self._barred.barred(look.kind, look.surface) if NONE not in (kind, surface) else []
        length = sum(len(self._encode(piece)) for piece, _ in pieces[1:])
        return Answer([*pieces, (".", True)], [way for way in barred if way[0] < length])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _asked(self, pixels: Pixels, prompts: Sequence[str], answers: Sequence[Answer]) -> Sentences:
        prefix, rows, ids = tokenized(self.processor, prompts, [answer.text for answer in answers])
        text = torch.full_like(ids, NONE)
        kinds = torch.zeros_like(ids, dtype=torch.bool)
        barred = []
        for number, (tokens, answer) in enumerate(zip(rows, answers, strict=True)):
            pieces = [self._encode(piece) for piece, _ in answer.pieces]
            length = sum(map(len, pieces))
            at = len(tokens) - 1 - length  # the last token is END
            if tokens[at:-1].tolist() != [token for piece in pieces for token in piece]:
                raise ValueError(f"the tokens of {answer.text!r} are not those of its pieces")
            barred += [(number, at + len(pieces[0]) + place - 1, token) for place, token in answer.barred]
            for part, (piece, (_, known)) in enumerate(zip(pieces, answer.pieces, strict=True)):
                if known:
                    text[number, at - 1 : at - 1 + len(piece)] = tokens[at : at + len(piece)]
                    kinds[number, at - 1 : at - 1 + len(piece)] = part == KIND
                at += len(piece)
            text[number, at - 1] = tokens[at]
        tensors = (prefix, ids, text, kinds, torch.tensor(barred, dtype=torch.long).reshape(-1, 3))
        return Sentences(pixels, *(tensor.to(self.device) for tensor in tensors))


def looking(
    decoder: Phi3VisionModel, asked: Sentences, hidden: Sequence[torch.Tensor], cache: Cache
) -> torch.Tensor:
    """Return how badly the words look at the result that they are about.

    Args:
        decoder: the model.
        asked: prompts with answers, one for each view.
        hidden: what each layer was given, (prompts, tokens, width).
        cache: keys of all tokens.
    """
    start, length = int((asked.prefix < 0).nonzero()[0]), len(asked.prefix) + asked.ids.shape[1]
    shown = torch.zeros(len(asked.ids), length, dtype=torch.bool, device=asked.ids.device)
    pixels = asked.pixels
    for view, number, box in zip(pixels.of_view.tolist(), pixels.numbers.tolist(), pixels.boxes, strict=True):
        if number != NUMBERS - 1:  # that is the query
            shown[view, start + torch.from_numpy(places_of(box))] = True
    rows, places = (asked.text != NONE).nonzero(as_tuple=True)
    losses = [
        attention_loss(decoder, layer, hidden[layer], cache, rows, places, shown[rows, None])
        for layer in LOOKING
    ]
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class Answer:
    """What is to be written.

    Attributes:
        pieces: of the text, and whether the picture tells each.
        barred: places behind the first piece, and tokens there that are not learnt against.
    """

    pieces: list[tuple[str, bool]]
    barred: list[tuple[int, int]]

    @property
    def text(self) -> str:
        """All pieces."""
        return "".join(piece for piece, _ in self.pieces)


def reason_prompt(case: Case, caption: str | None) -> str:
    """Return the question for a reason as ``Phi3VisionRerank`` puts it."""
    query = case.query
    return DEFAULT_REASON_PROMPT.format(
        **query_variables(query.text, has_picture=query.picture is not None, caption=caption),
        candidate_texts="",
    )
