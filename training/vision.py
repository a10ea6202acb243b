"""The reranker's first two stages: its vision tower learns to tell what the cells of a sheet show.

First on windows of 6 x 6 patches around one picture each, with the position embeddings they have on the
sheet, which costs a third; then on whole sheets, and on pictures alone as they are seen for a caption. There
the same is asked of the tokens that the decoder will be given, and the number of every token's cell: the
decoder has to find what is shown at a number, and would else have to do with what chance leaves of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, HELD_OUT, KINDS, SURFACES
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionForConditionalGeneration
from llama_index_multimodal_rerank.models.phi3_vision.image_embedding_phi3_vision import merge_patches
from llama_index_multimodal_rerank.reranking.sheet_layout import Box

from .pictures import NONE
from .rerank_cases import Case, Cases
from .sheets import (
    PATCHES_PER_SIDE,
    TILE,
    WINDOW,
    Pick,
    Uint8Array,
    compose,
    patches_of,
    tokens_of,
    window_of,
)

NUMBERS = 10
"""Of the cells of a sheet, and of its query."""

SOURCE = len(KINDS)
"""The kind of pictures that show where a surface comes from."""


@dataclass
class Pixels:
    """Views with what is seen where.

    Attributes:
        views: (views, 3, 336, 336), normalised.
        of_view: (pictures,), which view a picture is on.
        boxes: where it lies there.
        labels: (pictures, 3), kind, surface and colour; -100 where there is none.
        numbers: (pictures,), from 0, the last of ``NUMBERS`` for the query; -100 for a picture alone.
    """

    views: torch.Tensor
    of_view: torch.Tensor
    boxes: list[Box]
    labels: torch.Tensor
    numbers: torch.Tensor


def spare_held_out(logits: torch.Tensor, labels: torch.Tensor, column: int) -> torch.Tensor:
    """Leave held-out pairs out of the choice.

    Training shows no leopard phone case, so who is asked for the surface of a phone case learns above all
    that it is never leopard. What is no option is not learnt against.

    Args:
        logits: of kinds or surfaces, (pictures, classes).
        labels: (pictures, 3), kind, surface and colour.
        column: which of these the logits are for.
    """
    if column > 1:
        return logits
    held_out = _HELD_OUT.to(logits.device)
    other = labels[:, 1 - column]
    known = (other != NONE) & (other != SOURCE if column == 1 else True)
    rows = (held_out.T if column == 0 else held_out)[other.where(known, 0)]  # (pictures, kinds or surfaces)
    rows = F.pad(rows & known[:, None], (0, logits.shape[1] - rows.shape[1]))
    return logits.masked_fill(rows, -1e4)


_HELD_OUT = torch.tensor([[(kind, surface) in HELD_OUT for surface in SURFACES] for kind in KINDS])


class Heads(nn.Module):
    """Linear readings of kind, surface and colour; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(
            nn.Linear(width, classes) for classes in (len(KINDS) + 1, len(SURFACES), len(COLOURS))
        )

    def loss(self, pooled: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss and the share of right readings.

        Args:
            pooled: (pictures, width).
            labels: (pictures, 3); -100 where there is none.
        """
        pooled = self.norm(pooled)
        total = pooled.sum() * 0
        figures = {}
        for column, (name, weight) in enumerate((("kind", 1.0), ("surface", 1.0), ("colour", 0.5))):
            logits, wanted = self.heads[column](pooled), labels[:, column]  # (pictures, classes)
            logits = spare_held_out(logits, labels, column)
            known = wanted != NONE
            if known.any():  # a loss of nothing is NaN
                total = total + weight * F.cross_entropy(logits[known], wanted[known])
                figures[name] = (logits[known].argmax(-1) == wanted[known]).float().mean().item()
        return total, figures


class VisionProbe(nn.Module):
    """The parts that see: the vision tower and the heads.

    Args:
        model: the reranker.
    """

    def __init__(self, model: Phi3VisionForConditionalGeneration) -> None:
        super().__init__()
        self.tower = model.model.vision_embed_tokens.img_processor
        self.heads = Heads(model.config.vision_config.hidden_size)
        self.projection = model.model.vision_embed_tokens.img_projection
        self.token_heads = Heads(model.config.hidden_size)
        self.token_numbers = nn.Linear(model.config.hidden_size, NUMBERS)

    @property
    def used_layers(self) -> nn.ModuleList:
        """The layers whose output the model uses: all but the last."""
        layers: nn.ModuleList = self.tower.encoder.layers[:-1]
        return layers

    def patches(self, views: torch.Tensor) -> torch.Tensor:
        """Return features of all patches, (views, 576, width)."""
        hidden = self.tower.embeddings(views)
        return self._encode(hidden)

    def windows(self, pixels: Pixels, size: int = WINDOW) -> torch.Tensor:
        """Return features of the window around each picture, (pictures, size * size, width).

        Args:
            pixels: sheets.
            size: patches per side of a window.
        """
        embeddings = self.tower.embeddings
        corners = [window_of(box, size) for box in pixels.boxes]
        side = size * (TILE // PATCHES_PER_SIDE)
        crops = torch.stack(
            [
                pixels.views[view, :, row * 14 : row * 14 + side, column * 14 : column * 14 + side]
                for view, (row, column) in zip(pixels.of_view.tolist(), corners, strict=True)
            ]
        )
        patches = embeddings.patch_embedding(crops).flatten(2).transpose(1, 2)  # (pictures, patches, width)
        grid = torch.arange(size)
        offsets = (grid[:, None] * PATCHES_PER_SIDE + grid).reshape(-1)
        firsts = torch.tensor([row * PATCHES_PER_SIDE + column for row, column in corners])
        places = (1 + firsts[:, None] + offsets).to(patches.device)  # (pictures, patches); 0 is the class
        patches = patches + embeddings.position_embedding(places)
        first = embeddings.class_embedding + embeddings.position_embedding.weight[0]
        return self._encode(torch.cat([first.expand(len(patches), 1, -1), patches], dim=1))

    def _encode(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.tower.pre_layrnorm(hidden)
        for layer in self.used_layers:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:]

    def window_loss(self, pixels: Pixels) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of pictures looked at one by one."""
        return self.heads.loss(self.windows(pixels).mean(1), pixels.labels)

    def sheet_loss(self, pixels: Pixels) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of pictures and of their numbers, looked at on their sheets."""
        patches = self.patches(pixels.views)
        pooled, by_picture = pool(patches, pixels), self.tokens_by_picture(patches, pixels)
        tokens = torch.stack([own.mean(0) for own in by_picture])
        total, figures = self.heads.loss(pooled, pixels.labels)
        of_tokens, more = self.token_heads.loss(tokens, pixels.labels)
        total = total + of_tokens
        figures |= {f"token_{name}": value for name, value in more.items()}
        # Of every token, since attention looks at one by one; and as they are, not normed: what is small in
        # them is hard to find for the decoder.
        logits = self.token_numbers(torch.cat(by_picture))  # (tokens, numbers)
        numbers = pixels.numbers.repeat_interleave(torch.tensor([len(own) for own in by_picture]))
        figures["token_number"] = (logits.argmax(-1) == numbers)[numbers != NONE].float().mean().item()
        return total + F.cross_entropy(logits, numbers, ignore_index=NONE), figures

    def tokens_by_picture(self, patches: torch.Tensor, pixels: Pixels) -> list[torch.Tensor]:
        """Return the decoder's tokens that show each picture, (tokens, width) each."""
        tokens = self.projection(merge_patches(patches))  # (views, 12, 12, width)
        own = [[torch.from_numpy(places) for places in tokens_of(box)] for box in pixels.boxes]
        return [
            tokens[view, rows[:, None], columns].flatten(0, 1)
            for view, (rows, columns) in zip(pixels.of_view.tolist(), own, strict=True)
        ]


def pool(patches: torch.Tensor, pixels: Pixels) -> torch.Tensor:
    """Return the mean of the patches that show each picture, (pictures, width)."""
    return torch.stack(
        [
            patches[view, torch.from_numpy(patches_of(box)).to(patches.device)].mean(0)
            for view, box in zip(pixels.of_view.tolist(), pixels.boxes, strict=True)
        ]
    )


def normalized(views: np.ndarray, device: torch.device) -> torch.Tensor:  # type: ignore[type-arg]
    """Return uint8 views (views, 336, 336, 3) as the model is given them, (views, 3, 336, 336)."""
    values = torch.from_numpy(views).to(device).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(OPENAI_CLIP_MEAN, device=device)[:, None, None]
    std = torch.tensor(OPENAI_CLIP_STD, device=device)[:, None, None]
    return (values - mean) / std


def labels_of(pick: Pick, cases: Cases) -> tuple[int, int, int]:
    """Return kind, surface and colour of a picture, where they can be seen."""
    labels = pick.drawn.labels[pick.index].tolist()
    if pick.drawn is cases.sources:
        return SOURCE, NONE if pick.hides_surface else labels[0], NONE
    return NONE if pick.hides_kind else labels[0], NONE if pick.hides_surface else labels[1], labels[2]


class Shown:
    """Gathers views and what is seen where.

    Args:
        cases: whose pictures are shown.
    """

    def __init__(self, cases: Cases) -> None:
        self._cases = cases
        self._views: list[Uint8Array] = []
        # View, place on it, labels and number.
        self._seen: list[tuple[int, Box, tuple[int, int, int], int]] = []

    def add_sheet(self, case: Case, rng: np.random.Generator, *, hide: bool = False) -> None:
        """Add the sheet of a case, every picture on it changed at random (see ``Pick.changed``)."""
        candidates = [pick.changed(rng, hide=hide) for pick in case.candidates]
        query = None if case.picture is None else case.picture.changed(rng, hide=hide)
        self.add_results(candidates, query)

    def add_results(self, candidates: Sequence[Pick], query: Pick | None) -> None:
        """Add a sheet of pictures as they are."""
        view, layout = compose(candidates, query)
        places = zip(candidates, layout.cells, strict=True)
        seen = [(pick, place.picture, number) for number, (pick, place) in enumerate(places)]
        if query is not None and layout.query is not None:
            seen.append((query, layout.query.picture, NUMBERS - 1))
        self._add(view, seen)

    def add_alone(self, pick: Pick) -> None:
        """Add a picture that fills a view."""
        self._add(pick.at(TILE), [(pick, Box(0, 0, TILE, TILE), NONE)])

    def _add(self, view: Uint8Array, seen: list[tuple[Pick, Box, int]]) -> None:
        of_view = len(self._views)
        self._views.append(view)
        self._seen += [(of_view, box, labels_of(pick, self._cases), number) for pick, box, number in seen]

    def pixels(self, device: torch.device) -> Pixels:
        """Return everything added, as tensors."""
        of_view, boxes, labels, numbers = zip(*self._seen, strict=True)
        return Pixels(
            normalized(np.stack(self._views), device),
            torch.tensor(of_view),
            list(boxes),
            torch.tensor(labels, device=device),
            torch.tensor(numbers, device=device),
        )


def sheets_batch(
    cases: Cases, sheets: int, alone: int, device: torch.device, rng: np.random.Generator
) -> Pixels:
    """Make sheets of random pictures, and pictures alone.

    Args:
        cases: draws them.
        sheets: number of sheets, with a query picture or without.
        alone: number of pictures that fill a view.
        device: of the tensors.
        rng: random numbers.
    """
    shown = Shown(cases)
    for _ in range(sheets):
        shown.add_sheet(cases.with_distractors(cases.draw(rng), rng), rng, hide=True)
    for _ in range(alone):
        shown.add_alone(cases.pictured_query(rng)[1].changed(rng, hide=True))
    return shown.pixels(device)
