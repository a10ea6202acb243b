"""Which tokens the taught heads of the decoder should look at, and how far they are from it.

Labels look at their cells (first layer). Behind the layer after which attributes are read, they look at what
is wanted where an attribute is the wanted one, else at themselves. In the last layer, the places where a list
is written look at the best labels left, and the words of a reason look at the label that the list begins
with: at its place in the question, where its looks and its fit lie. Which one that is they see in the reason
itself, whose label is copied from the list.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Cache

from llama_index_multimodal_rerank.models.phi3_vision.modeling_phi3_vision import Phi3VisionModel

from .attention_supervision import REASON_HEADS, attention_loss, places_of
from .pictures import NONE
from .questions import QuestionBatch
from .rerank_cases import Case

RELAYED_AFTER, ATTRIBUTES_AFTER, FIT_AFTER = 1, 2, 3
"""Layers after which the words of a reason look for their label, and after which readings are taken."""


class Pointing:
    """The losses of a batch's attention.

    Args:
        decoder: the model.
        asked: rankings.
        hidden: what each layer is given, behind the picture, (prompts, tokens, width) each.
        cache: keys of all tokens.
    """

    def __init__(
        self, decoder: Phi3VisionModel, asked: QuestionBatch, hidden: Sequence[torch.Tensor], cache: Cache
    ) -> None:
        self._decoder, self._asked, self._hidden, self._cache = decoder, asked, hidden, cache
        self._prefix = len(asked.prefix)
        self._length = self._prefix + asked.ids.shape[1]
        self._device = asked.ids.device
        # Read one by one, which a GPU would be waited for each time.
        self._listed, self._written = asked.listed.cpu(), asked.written.cpu()
        self._labels = (self._listed >= 0).nonzero(as_tuple=True)

    def cells(self) -> torch.Tensor:
        """Return how badly labels look at their cells."""
        asked = self._asked
        start = int((asked.prefix < 0).nonzero()[0])
        boxes = {
            (view, number): box
            for view, number, box in zip(
                asked.pixels.of_view.tolist(), asked.pixels.numbers.tolist(), asked.pixels.boxes, strict=True
            )
        }
        each = len(asked.ids) // len(asked.pixels.views)
        rows, columns = self._labels
        own = torch.zeros(len(rows), self._length, dtype=torch.bool)
        for label, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            own[label, start + torch.from_numpy(places_of(boxes[row // each, column]))] = True
        return self._loss(0, rows, self._listed[rows, columns], own)

    def comparing(self, right: torch.Tensor) -> torch.Tensor:
        """Return how badly labels compare.

        They look at the last words before them, which have gathered what is wanted, where their kind
        (surface, colour: a head each) is the wanted one; at themselves where it is not.

        Args:
            right: whether it is, (labels, 3).
        """
        rows, columns = self._labels
        places = self._listed[rows, columns]
        position = torch.arange(self._length)
        wanted = position == self._prefix + self._asked.wanted_at.cpu()[rows, None]
        themselves = position == self._prefix + places[:, None]
        same = torch.where(right.cpu()[:, :, None], wanted[:, None], themselves[:, None])  # (labels, 3, keys)
        return self._loss(ATTRIBUTES_AFTER, rows, places, same)

    def choices(self) -> torch.Tensor:
        """Return how badly the places where a list is written look at the best labels left."""
        asked = self._asked
        rows, steps = ((self._written >= 0) & asked.sorted.cpu()[:, None]).nonzero(as_tuple=True)
        best = torch.zeros(len(rows), self._length, dtype=torch.bool)
        gone = torch.zeros_like(best)
        for query, (row, step) in enumerate(zip(rows.tolist(), steps.tolist(), strict=True)):
            order = asked.orders[row]
            best[query, self._prefix + self._listed[row, best_left(asked.cases[row], order[step:])]] = True
            gone[query, self._prefix + self._listed[row, order[:step]]] = True
        return self._loss(FIT_AFTER, rows, self._written[rows, steps] - 1, best, gone)

    def reasons(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how badly reasons look for their label, and at the candidate that it stands for."""
        relayed: list[tuple[int, int, int]] = []
        looking: list[tuple[int, int, int]] = []
        text = self._asked.text.cpu()
        for row, opening in enumerate(self._asked.reason_at.tolist()):
            if opening < 0:
                continue
            end = int((text[row] != NONE).nonzero()[-1]) + 1
            relayed.append((row, opening, int(self._written[row, 0])))
            relayed += [(row, place, opening + 1) for place in range(opening + 2, end)]
            candidate = int(self._listed[row, self._asked.orders[row][0]])
            looking += [(row, place, candidate) for place in range(opening + 1, end)]
        relay = self._look(RELAYED_AFTER, relayed)
        return relay, self._look(ATTRIBUTES_AFTER, looking) + self._look(FIT_AFTER, looking)

    def _look(self, layer: int, told: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        """Return the loss of looks from places to one place each."""
        rows, places, targets = torch.tensor(told, dtype=torch.long).reshape(-1, 3).T
        wanted = torch.arange(self._length) == self._prefix + targets[:, None]
        return self._loss(layer, rows, places, wanted, heads=REASON_HEADS)

    def _loss(
        self,
        layer: int,
        rows: torch.Tensor,
        places: torch.Tensor,
        wanted: torch.Tensor,
        barred: torch.Tensor | None = None,
        **options: slice,
    ) -> torch.Tensor:
        moved = (rows, places, wanted if wanted.ndim == 3 else wanted[:, None], barred)
        return attention_loss(
            self._decoder,
            layer,
            self._hidden[layer],
            self._cache,
            *(each if each is None else each.to(self._device) for each in moved),  # type: ignore[arg-type]
            **options,
        )


def best_left(case: Case, remaining: Sequence[int]) -> list[int]:
    """Return those of the labels left, best first, that fit as well as the first."""
    tiers = case.tiers
    return [label for label in remaining if tiers[label] == tiers[remaining[0]]]
