"""Batches of queries and the products that answer them, from drawn pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import DemoQuery, make_query
from llama_index_multimodal_rerank.models.visualized_bge.processing import TextTokenizer

from .pictures import Drawn
from .vocabulary import filler_ids

FAMILIES = {
    "pattern": 0.46,
    "kind edit": 0.15,
    "colour edit": 0.10,
    "surface edit": 0.13,
    "text": 0.11,
    "image": 0.05,
}
"""How often each family of queries is trained."""

UNKNOWN = -100
"""Label of what cannot be known; the value that cross entropies ignore."""

_FILLED = 0.35  # share of texts with fillers
_MOST_FILLERS = 3

Int64Array = npt.NDArray[np.int64]
Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
    """Queries, those with a picture first, and for each a product that answers it.

    Attributes:
        target_pixels: the products, uint8, (batch, side, side, 3).
        target_labels: their kind, surface and colour, (batch, 3).
        target_theta: how to warp them, see :func:`augment`, (batch, 2, 3).
        target_gain: their brightness, (batch,).
        query_pixels: pictures of the first queries, uint8, (pictured, side, side, 3).
        query_theta: how to warp these, (pictured, 2, 3).
        query_gain: their brightness, (pictured,).
        query_ids: token ids of the first queries, (pictured, tokens).
        query_mask: 1 for tokens, 0 for padding, (pictured, tokens).
        text_ids: token ids of the other queries, (batch - pictured, tokens).
        text_mask: as ``query_mask``.
        empty_ids: token ids that stand beside the products, those of the empty text, (batch, 2).
        wanted: kind, surface and colour asked for; the colour is UNKNOWN where none was, (batch, 3).
        told: kind, surface and colour that the query, picture and words, lets one know, (batch, 3).
    """

    target_pixels: torch.Tensor
    target_labels: torch.Tensor
    target_theta: torch.Tensor
    target_gain: torch.Tensor
    query_pixels: torch.Tensor
    query_theta: torch.Tensor
    query_gain: torch.Tensor
    query_ids: torch.Tensor
    query_mask: torch.Tensor
    text_ids: torch.Tensor
    text_mask: torch.Tensor
    empty_ids: torch.Tensor
    wanted: torch.Tensor
    told: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class BatchSampler:
    """Draws batches.

    Args:
        products: pictures to be found, and pictures of queries.
        sources: pictures of queries that show where a surface comes from.
        tokenizer: of the model.
        image_size: side of the pictures to take, in pixels.
        batch_size: queries of a batch.
    """

    def __init__(
        self,
        products: Drawn,
        sources: Drawn,
        tokenizer: TextTokenizer,
        *,
        image_size: int,
        batch_size: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._products, self._sources = products.pictures[image_size], sources.pictures[image_size]
        self._looks = [
            Look(KINDS[kind], SURFACES[surface], COLOURS[colour]) for kind, surface, colour in products.labels
        ]
        self._fillers = filler_ids(tokenizer.tokenizer)
        self._rows: dict[Look | str, list[int]] = defaultdict(list)
        for row, look in enumerate(self._looks):
            self._rows[look].append(row)
        for row, surface in enumerate(sources.labels[:, 0]):
            self._rows[SURFACES[surface]].append(row)

    def batch(self, rng: np.random.Generator) -> Batch:
        """Draw a batch."""
        drawn = [self._draw(rng) for _ in range(self._batch_size)]
        drawn.sort(key=lambda pair: pair[1].picture is None)
        queries = [query for _, query in drawn]
        pictured = sum(query.picture is not None for query in queries)
        targets = np.array([row for row, _ in drawn])
        ids = [self._filled(row, rng) for row in self._tokenizer([query.text for query in queries])]
        query_ids, query_mask = self._pad(ids[:pictured])
        text_ids, text_mask = self._pad(ids[pictured:])
        side = self._products.shape[1]
        pixels = np.empty((pictured, side, side, 3), dtype=np.uint8)
        for i, query in enumerate(queries[:pictured]):
            pixels[i] = self._query_picture(query, targets[i], rng)
        target_theta, target_gain = _warps(len(targets), rng)
        query_theta, query_gain = _warps(pictured, rng)
        labels = torch.tensor([_labels(self._looks[row]) for row in targets])
        wanted, told = labels.clone(), labels.clone()
        for i, query in enumerate(queries):
            if query.colour is None:
                wanted[i, 2] = UNKNOWN
                if not isinstance(query.picture, Look):
                    told[i, 2] = UNKNOWN
        return Batch(
            target_pixels=torch.from_numpy(self._products[targets]),
            target_labels=labels,
            target_theta=target_theta,
            target_gain=target_gain,
            query_pixels=torch.from_numpy(pixels),
            query_theta=query_theta,
            query_gain=query_gain,
            query_ids=query_ids,
            query_mask=query_mask,
            text_ids=text_ids,
            text_mask=text_mask,
            empty_ids=torch.from_numpy(self._tokenizer([""])[0]).expand(len(targets), -1),
            wanted=wanted,
            told=told,
        )

    def _draw(self, rng: np.random.Generator) -> tuple[int, DemoQuery]:
        families, shares = list(FAMILIES), np.array(list(FAMILIES.values()))
        while True:  # in small sets a look that a query is to show may not have been drawn
            target = int(rng.integers(len(self._looks)))
            family = families[int(rng.choice(len(families), p=shares / shares.sum()))]
            query = make_query(family, self._looks[target], rng)
            if query.picture is None or self._rows.get(query.picture):
                return target, query

    def _query_picture(self, query: DemoQuery, target: int, rng: np.random.Generator) -> Uint8Array:
        assert query.picture is not None  # noqa: S101
        rows = self._rows[query.picture]
        pictures = self._sources if isinstance(query.picture, str) else self._products
        row = rows[int(rng.integers(len(rows)))]
        if row == target and not isinstance(
            query.picture, str
        ):  # another picture of the look, if there is one
            row = rows[(rows.index(row) + 1) % len(rows)]
        return pictures[row]

    def _filled(self, ids: Int64Array, rng: np.random.Generator) -> Int64Array:
        if len(ids) <= 2 or rng.random() > _FILLED:  # a picture alone stays alone
            return ids
        for _ in range(int(rng.integers(1, _MOST_FILLERS + 1))):
            # mostly around the wish, as people do
            place = rng.choice([1, len(ids) - 1, int(rng.integers(1, len(ids)))])
            ids = np.insert(ids, place, self._fillers[int(rng.integers(len(self._fillers)))])
        return ids

    def _pad(self, ids: Sequence[Int64Array]) -> tuple[torch.Tensor, torch.Tensor]:
        if not ids:
            return torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2, dtype=torch.long)
        return self._tokenizer.pad(ids)


def augment(pixels: torch.Tensor, theta: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Warp and brighten pictures.

    Args:
        pixels: uint8, (batch, side, side, 3).
        theta: affine maps as ``torch.nn.functional.affine_grid`` takes them, (batch, 2, 3).
        gain: factors of brightness, (batch,).

    Returns:
        float32 in 0 to 255, (batch, side, side, 3).
    """
    planes = pixels.permute(0, 3, 1, 2).float()  # (batch, 3, side, side)
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    warped = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return (warped * gain.view(-1, 1, 1, 1)).clamp(0, 255).permute(0, 2, 3, 1)


def _warps(count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    flip = rng.choice([-1.0, 1.0], count)
    scale = rng.uniform(0.8, 1.08, count)
    shift = rng.uniform(-0.12, 0.12, (count, 2))
    # Half are only mirrored: warped pictures are a little softer than those that the model will meet.
    sharp = rng.random(count) < 0.5
    scale[sharp] = 1
    shift[sharp] = 0
    theta = np.zeros((count, 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = flip * scale, scale, shift
    return torch.from_numpy(theta), torch.from_numpy(rng.uniform(0.85, 1.15, count).astype(np.float32))


def _labels(look: Look) -> tuple[int, int, int]:
    return KINDS.index(look.kind), SURFACES.index(look.surface), COLOURS.index(look.colour)
