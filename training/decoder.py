"""The reranker's last stages: its decoder learns to caption, to rank and to give a reason.

Losses: at each step of the list, the labels left that fit best (a soft Plackett-Luce), told by that step and
by the first one alone, for both ways to read a ranking; the words of caption and reason; and, in training
only, linear readings on the way: after the second layer what each candidate shows and what is wanted, after
the third how well each candidate fits, and its label. What builds on the first readings counts as far as
these are sure, lest the noise of what cannot be learnt yet drown what can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import DemoQuery
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionForConditionalGeneration
from llama_index_multimodal_rerank.models.phi3_vision.cache_argument import output_cache
from llama_index_multimodal_rerank.models.phi3_vision.image_embedding_phi3_vision import merge_patches

from .attention_supervision import attention_loss, places_of
from .questions import QuestionBatch
from .rerank_cases import TIERS, Case
from .vision import NONE, VisionProbe, pool, spare_held_out

ATTRIBUTES_AFTER, FIT_AFTER = 2, 3
"""Layers after which the readings are taken."""

NO_COLOUR = len(COLOURS)
PARTS = ("kind", "surface", "colour")


class Read(NamedTuple):
    """What the model makes of prompts with their answers.

    Attributes:
        patches: of the views, (views, 576, width).
        begin: what each layer was given of how all prompts begin, up to the end of the picture, and last the
            normed output; (views, tokens, width) each.
        hidden: the same of how they go on, (prompts, tokens, width) each.
        cache: keys of all tokens.
    """

    patches: torch.Tensor
    begin: tuple[torch.Tensor, ...]
    hidden: tuple[torch.Tensor, ...]
    cache: Cache


class DecoderProbe(nn.Module):
    """The whole model with its readings.

    Args:
        model: the reranker.
        probe: its vision tower with heads.
        digits: token ids of the labels 1 to 9.
    """

    def __init__(
        self, model: Phi3VisionForConditionalGeneration, probe: VisionProbe, digits: Sequence[int]
    ) -> None:
        super().__init__()
        self.model, self.probe = model, probe
        width = model.config.hidden_size
        self.shown = nn.ModuleList(nn.Linear(width, n) for n in (len(KINDS), len(SURFACES), len(COLOURS)))
        self.wanted = nn.ModuleList(
            nn.Linear(width, n) for n in (len(KINDS), len(SURFACES), len(COLOURS) + 1)
        )
        # Read as the next layer reads it: what lies on the way is small at first, and is else learnt late.
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in (ATTRIBUTES_AFTER, FIT_AFTER))
        self.fit = nn.Linear(width, TIERS)
        self.matches = nn.Linear(width, 3)
        self.number = nn.Linear(width, len(digits))
        self.digits = list(digits)
        self.see = True

    def freeze_probe(self, frozen: bool) -> None:
        """Leave the vision tower and its projection as they are, or train them along."""
        self.see = not frozen
        self.probe.requires_grad_(not frozen)

    def image_features(self, patches: torch.Tensor) -> list[torch.Tensor]:
        """Return what ``Phi3VisionImageEmbedding.encode`` makes of a picture of one tile."""
        embedding = self.model.model.vision_embed_tokens
        sequences = []
        for grid in merge_patches(patches):
            lines = embedding.lines(grid)
            sequences.append(torch.cat([lines, embedding.glb_GN[0], lines]))
        return list(embedding.img_projection(torch.stack(sequences)))

    def read(self, asked: QuestionBatch) -> Read:
        """Let the model read prompts with their answers.

        Prompts about one picture begin alike; that part is computed once.
        """
        with torch.set_grad_enabled(self.see and torch.is_grad_enabled()):
            patches = self.probe.patches(asked.pixels.views)
        decoder = self.model.model
        views = len(patches)
        prefix = decoder.embed(asked.prefix.expand(views, -1), self.image_features(patches))
        begun = decoder(inputs_embeds=prefix, use_cache=True, output_hidden_states=True)
        cache = output_cache(begun)
        cache.batch_repeat_interleave(len(asked.ids) // views)
        outputs = decoder(
            inputs_embeds=decoder.embed_tokens(asked.ids),
            cache=cache,
            output_hidden_states=True,
        )
        begin, hidden = ((*each.hidden_states[:-1], each.last_hidden_state) for each in (begun, outputs))
        return Read(patches, begin, hidden, cache)

    def loss(self, batch: Sequence[QuestionBatch]) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of rankings and captions, and figures."""
        total = torch.zeros((), device=batch[0].ids.device)
        figures: dict[str, float] = {}
        for asked in batch:
            patches, _, hidden, cache = self.read(asked)
            words, right = self._words(asked, hidden[-1])
            total = total + 0.3 * words
            name = "reason" if asked.cases else "caption"
            figures[f"{name}_loss"], figures[f"{name}_words"] = words.item(), right
            if asked.cases:
                ranking, more = self._ranking(asked, hidden, cache)
                total = total + ranking
                figures |= more
            if self.see:
                seen, more = self.probe.heads.loss(pool(patches, asked.pixels), asked.pixels.labels)
                total = total + 0.3 * seen
                figures |= {
                    f"eye_{name}_{'sheet' if asked.cases else 'alone'}": v for name, v in more.items()
                }
        return total, figures

    def _words(self, asked: QuestionBatch, last: torch.Tensor) -> tuple[torch.Tensor, float]:
        at = asked.text != NONE
        logits, wanted = self.model.lm_head(last[at]), asked.text[at]
        return F.cross_entropy(logits, wanted), _share_right(logits, wanted)

    def _ranking(
        self, asked: QuestionBatch, hidden: Sequence[torch.Tensor], cache: Cache
    ) -> tuple[torch.Tensor, dict[str, float]]:
        rows, columns = (asked.listed >= 0).nonzero(as_tuple=True)
        places = asked.listed[rows, columns]
        halfway, compared = self.norms[0](hidden[ATTRIBUTES_AFTER]), self.norms[1](hidden[FIT_AFTER])
        labelled = [
            (asked.cases[row], label) for row, label in zip(rows.tolist(), columns.tolist(), strict=True)
        ]
        figures: dict[str, float] = {}
        seen = self._shown(halfway[rows, places], labelled, figures)
        queries = torch.arange(len(asked.wanted_at), device=places.device)
        asked_for = self._wanted(halfway[queries, asked.wanted_at], asked.cases, figures)
        right = _right_parts(labelled, places.device)
        fit, matched = self._compared(compared[rows, places], labelled, right, figures)
        # Its label, which answers name.
        logits = self.number(compared[rows, places])
        named = F.cross_entropy(logits, columns)
        figures["label"] = _share_right(logits, columns)
        ranking, first = self._list_loss(asked, hidden[-1])
        figures["list_loss"], figures["first_right"] = ranking.item(), first
        sure = torch.exp(-seen - asked_for).detach()
        cells, comparing, choices = self._pointing(asked, hidden, cache, right)
        figures |= {"look_cell": cells.item(), "look_same": comparing.item(), "look_best": choices.item()}
        return (
            cells
            + 2 * seen
            + asked_for
            + named
            + sure * (2 * comparing + fit + 2 * matched + choices + 2 * ranking)
        ), figures

    def _shown(
        self, at: torch.Tensor, labelled: Sequence[tuple[Case, int]], figures: dict[str, float]
    ) -> torch.Tensor:
        """Read what each candidate shows, (candidates, width); fill in figures."""
        looks = [case.looks[label] for case, label in labelled]
        labels = torch.tensor(
            [
                [KINDS.index(look.kind), SURFACES.index(look.surface), COLOURS.index(look.colour)]
                for look in looks
            ],
            device=at.device,
        )  # (candidates, 3)
        loss = torch.zeros((), device=at.device)
        for column, (name, head) in enumerate(zip(PARTS, self.shown, strict=True)):
            logits = spare_held_out(head(at), labels, column)
            loss = loss + F.cross_entropy(logits, labels[:, column]) / 3
            figures[f"cell_{name}"] = _share_right(logits, labels[:, column])
        return loss

    def _wanted(self, at: torch.Tensor, cases: Sequence[Case], figures: dict[str, float]) -> torch.Tensor:
        """Read what is wanted off the last words before the candidates, (queries, width); fill in figures."""
        queries = [case.query for case in cases]
        targets = (
            [KINDS.index(query.kind) for query in queries],
            [SURFACES.index(query.surface) for query in queries],
            [COLOURS.index(query.colour) if query.colour else NO_COLOUR for query in queries],
        )
        loss = torch.zeros((), device=at.device)
        for name, head, target in zip(PARTS, self.wanted, targets, strict=True):
            logits, wanted = head(at), torch.tensor(target, device=at.device)
            loss = loss + F.cross_entropy(logits, wanted) / 3
            figures[f"wanted_{name}"] = _share_right(logits, wanted)
        return loss

    def _compared(
        self,
        at: torch.Tensor,
        labelled: Sequence[tuple[Case, int]],
        right: torch.Tensor,
        figures: dict[str, float],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read how well each candidate fits, and which parts of it are right; fill in figures.

        Comparing comes late in training; parts are learnt before their sum.
        """
        tiers = torch.tensor([case.tiers[label] for case, label in labelled], device=at.device)
        logits = self.fit(at)
        fit = F.cross_entropy(logits, tiers)
        figures["fit"] = _share_right(logits, tiers)
        logits = self.matches(at)  # (candidates, 3)
        for column, name in enumerate(PARTS):
            figures[f"match_{name}"] = ((logits[:, column] > 0) == right[:, column]).float().mean().item()
        return fit, F.binary_cross_entropy_with_logits(logits, right.float())

    def _pointing(
        self, asked: QuestionBatch, hidden: Sequence[torch.Tensor], cache: Cache, right: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return how badly labels look at their cells, heads compare, and answers look at the best labels."""
        decoder, device = self.model.model, asked.ids.device
        prefix = len(asked.prefix)
        length = prefix + asked.ids.shape[1]
        rows, columns = (asked.listed >= 0).nonzero(as_tuple=True)
        places = asked.listed[rows, columns]
        # From labels to their cells.
        start = int((asked.prefix < 0).nonzero()[0])
        boxes = {
            (view, number): box
            for view, number, box in zip(
                asked.pixels.of_view.tolist(), asked.pixels.numbers.tolist(), asked.pixels.boxes, strict=True
            )
        }
        each = len(asked.ids) // len(asked.pixels.views)
        own = torch.zeros(len(rows), length, dtype=torch.bool, device=device)
        for query, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            own[query, start + torch.from_numpy(places_of(boxes[row // each, column]))] = True
        cells = attention_loss(decoder, 0, hidden[0], cache, rows, places, own[:, None])
        # From labels to the last words before them, which have gathered what is wanted, where a label's kind
        # (surface, colour: a head each) is the wanted one; to themselves where it is not.
        position = torch.arange(length, device=device)
        wanted = (position == prefix + asked.wanted_at[rows, None])[:, None]  # (labels, 1, keys)
        themselves = (position == prefix + places[:, None])[:, None]
        same = torch.where(right[:, :, None], wanted, themselves)  # (labels, 3, keys)
        comparing = attention_loss(
            decoder, ATTRIBUTES_AFTER, hidden[ATTRIBUTES_AFTER], cache, rows, places, same
        )
        # From the places where a label is written next to the best ones left.
        rows, steps = (asked.written >= 0).nonzero(as_tuple=True)
        best = torch.zeros(len(rows), length, dtype=torch.bool, device=device)
        gone = torch.zeros_like(best)
        for query, (row, step) in enumerate(zip(rows.tolist(), steps.tolist(), strict=True)):
            order = asked.orders[row]
            best[query, prefix + asked.listed[row, best_left(asked.cases[row], order[step:])]] = True
            gone[query, prefix + asked.listed[row, order[:step]]] = True
        places = asked.written[rows, steps] - 1
        choices = attention_loss(
            decoder, FIT_AFTER, hidden[FIT_AFTER], cache, rows, places, best[:, None], gone
        )
        return cells, comparing, choices

    def _list_loss(self, asked: QuestionBatch, last: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Soft Plackett-Luce over the labels left: told at every step of the list, and by the first step."""
        rows, steps = (asked.written >= 0).nonzero(as_tuple=True)
        logits = self.model.lm_head(last[rows, asked.written[rows, steps] - 1])[:, self.digits]  # (steps, 9)
        firsts = steps == 0
        first = logits[firsts][rows]  # (steps, 9); every prompt has a first step
        targets = torch.zeros_like(logits)
        left = torch.zeros_like(logits, dtype=torch.bool)
        weights = torch.ones(len(rows), device=logits.device)
        for number, (row, step) in enumerate(zip(rows.tolist(), steps.tolist(), strict=True)):
            remaining = asked.orders[row][step:]
            best = best_left(asked.cases[row], remaining)
            targets[number, best] = 1 / len(best)
            left[number, remaining] = True
            weights[number] = 1.0 if step == 0 else float(len(best) < len(remaining)) * 0.5
        losses = torch.zeros_like(weights)
        for told in (logits, first):
            losses = losses - (targets * told.masked_fill(~left, -1e4).log_softmax(dim=-1)).sum(-1)
        chosen = logits[firsts].masked_fill(~left[firsts], -1e4).argmax(-1)
        right = (targets[firsts].gather(1, chosen[:, None])[:, 0] > 0).float().mean().item()
        return (losses * weights).sum() / weights.sum().clamp(min=1), right


def best_left(case: Case, remaining: Sequence[int]) -> list[int]:
    """Return those of the labels left, best first, that fit as well as the first."""
    tiers = case.tiers
    return [label for label in remaining if tiers[label] == tiers[remaining[0]]]


def colour_fits(query: DemoQuery, look: Look) -> bool:
    """Whether a product has the colour that was asked for, if one was."""
    return query.colour is None or look.colour == query.colour


def _right_parts(labelled: Sequence[tuple[Case, int]], device: torch.device) -> torch.Tensor:
    """Return whether kind, surface and colour of each candidate are the wanted ones, (candidates, 3)."""
    looks = [(case.query, case.looks[label]) for case, label in labelled]
    return torch.tensor(
        [
            [look.kind == query.kind, look.surface == query.surface, colour_fits(query, look)]
            for query, look in looks
        ],
        device=device,
    )


def _share_right(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    return (logits.argmax(-1) == wanted).float().mean().item()
