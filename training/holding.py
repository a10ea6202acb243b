"""What a model must not forget while it learns something else: told by a copy of it that learns nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionForConditionalGeneration

from .closer_looks import Sentences
from .decoder import DecoderProbe
from .pictures import NONE
from .questions import QuestionBatch
from .vision import VisionProbe


class Held(nn.Module):
    """The model as it was.

    Args:
        model: the reranker, of which a copy is kept.
        digits: token ids of the labels 1 to 9.
    """

    def __init__(self, model: Phi3VisionForConditionalGeneration, digits: Sequence[int]) -> None:
        super().__init__()
        kept = copy.deepcopy(model)
        self.as_it_was = DecoderProbe(kept, VisionProbe(kept), digits).requires_grad_(False)
        self.digits = list(digits)

    def patches(self, patches: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        """Return how far features of patches are from what they were, as a share of these.

        Args:
            patches: (views, 576, width).
            views: what they are of, (views, 3, 336, 336).
        """
        with torch.no_grad():
            before = self.as_it_was.probe.patches(views)
        return _distance(patches, before)

    def answers(self, student: DecoderProbe, asked: QuestionBatch) -> dict[str, torch.Tensor]:
        """Return how far rankings are from what they were.

        Args:
            student: the model as it is.
            asked: rankings.

        Returns:
            ``labels``: divergence (KL, nats) at each step of the lists, among those left; ``words``: that of
            all words; ``states``: of what all layers give, as a share of their variance, at the labels in
            the question and where one is written next; ``shown``: the same, of the picture.
        """
        _, begin, hidden, _ = student.read(asked)
        with torch.no_grad():
            _, begin_before, hidden_before, _ = self.as_it_was.read(asked)
        rows, steps = (asked.written >= 0).nonzero(as_tuple=True)
        left = torch.zeros(len(rows), len(self.digits), dtype=torch.bool, device=rows.device)
        for number, (row, step) in enumerate(zip(rows.tolist(), steps.tolist(), strict=True)):
            left[number, asked.orders[row][step:]] = True
        labels = []
        for model, states in ((student, hidden), (self.as_it_was, hidden_before)):
            logits = model.model.lm_head(states[-1][rows, asked.written[rows, steps] - 1])[:, self.digits]
            labels.append(logits.masked_fill(~left, -1e4))
        words = self._words(asked.text != NONE, (student, hidden), (self.as_it_was, hidden_before))
        listed, columns = (asked.listed >= 0).nonzero(as_tuple=True)
        at_labels = torch.cat([listed, rows])
        places = torch.cat([asked.listed[listed, columns], asked.written[rows, steps] - 1])
        states = [
            _distance(now[at_labels, places], then[at_labels, places])
            for now, then in zip(hidden[1:], hidden_before[1:], strict=True)
        ]
        shown = [_distance(now, then) for now, then in zip(begin[1:], begin_before[1:], strict=True)]
        return {
            "labels": _divergence(*labels),
            "words": words,
            "states": torch.stack(states).mean(),
            "shown": torch.stack(shown).mean(),
        }

    def loss(
        self, student: DecoderProbe, asked: QuestionBatch, weights: Mapping[str, float]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the weighted sum of :meth:`answers`, and each as a figure."""
        kept = self.answers(student, asked)
        total = torch.stack([weights[name] * value for name, value in kept.items()]).sum()
        return total, {f"kept_{name}": value.item() for name, value in kept.items()}

    def words(
        self, student: DecoderProbe, hidden: Sequence[torch.Tensor], asked: Sentences, at: torch.Tensor
    ) -> torch.Tensor:
        """Return how far words are from what they were: divergence (KL, nats) of all words.

        Args:
            student: the model as it is.
            hidden: what its layers give for ``asked``.
            asked: prompts with their answers.
            at: (prompts, tokens), the positions before these words.
        """
        with torch.no_grad():
            before = self.as_it_was.read(asked).hidden
        return self._words(at, (student, hidden), (self.as_it_was, before))

    @staticmethod
    def _words(at: torch.Tensor, *models: tuple[DecoderProbe, Sequence[torch.Tensor]]) -> torch.Tensor:
        return _divergence(*(model.model.lm_head(hidden[-1][at]) for model, hidden in models))


def _distance(values: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(values, before) / before.var()


def _divergence(logits: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    return F.kl_div(logits.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean")
