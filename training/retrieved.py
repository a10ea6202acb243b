"""Lists of candidates as the demo's embedder retrieves them: what its reranker will be given."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE

from .questions import QuestionBatch, Questions, caption_batch, told_caption
from .rerank_cases import Case, Cases

CATALOGUE = 900
TOP = 9
QUERIES_PER_CATALOGUE = 50
COLOURED = 0.4
"""Share of queries that ask for a colour, twice what is drawn: comparing colours had the least practice."""

_TRIES = 100
"""To find such a query: a handful of lists may hold none."""

NOISE = (0.0, 0.5, 1.0)
"""Length of random vectors added to queries. Looks seen in training are found too well: the errors of
those held out must come from somewhere."""


class RetrievedLists:
    """Retrieves lists from catalogues of training pictures, once, and keeps them.

    Args:
        embedder: folder of the demo's embedder.
        cases: draws queries.
        folder: where the lists are kept.
        count: number of lists.
        seed: seed of queries and catalogues.
    """

    def __init__(self, embedder: Path, cases: Cases, folder: Path, count: int, seed: int) -> None:
        self.cases, self.seed, self.count = cases, seed, count
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"lists-{count}-{seed}.npy"
        if not path.exists():
            np.save(path, self._retrieve(VisualizedBGE.from_pretrained(str(embedder))))
        self.lists: npt.NDArray[np.int64] = np.load(path)  # (lists, 9), of the products

    def __len__(self) -> int:
        return self.count

    def case(self, number: int) -> Case:
        """Return a query with what was retrieved for it, best first."""
        query, picture = self.cases.query(self._rng(number))
        return self.cases.case(query, picture, self.lists[number].tolist())

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 77, number])

    def _retrieve(self, embedder: VisualizedBGE) -> npt.NDArray[np.int64]:
        pool = min(len(self.cases.products), 10 * CATALOGUE)
        pictures = [Image.fromarray(picture) for picture in self.cases.products.pictures[112][:pool]]
        products = embedder.encode(pictures, batch_size=64, show_progress=True)  # (pool, dim)
        items = []
        for number in range(self.count):
            query, picture = self.cases.query(self._rng(number))
            shown = Image.fromarray(picture.at(224)) if picture is not None else None
            items.append(query.text if shown is None else (query.text, shown))
        queries = embedder.encode(items, batch_size=64, show_progress=True)  # (lists, dim)
        lists = np.empty((self.count, TOP), dtype=np.int64)
        rng = np.random.default_rng([self.seed, 78])
        for number, vector in enumerate(queries):
            if number % QUERIES_PER_CATALOGUE == 0:
                catalogue = rng.choice(pool, size=min(CATALOGUE, pool), replace=False)
            noise = rng.standard_normal(len(vector)) / np.sqrt(len(vector))
            wanted = vector + NOISE[number % len(NOISE)] * noise
            lists[number] = catalogue[np.argsort(-(products[catalogue] @ wanted))[:TOP]]
        return lists


def retrieved_batch(
    questions: Questions, lists: RetrievedLists, count: int, rng: np.random.Generator
) -> list[QuestionBatch]:
    """Make a batch of rankings of retrieved lists, half in random order, with captions beside them."""
    cases = []
    for _ in range(count):
        coloured = bool(rng.random() < COLOURED)
        for _ in range(_TRIES):
            case = lists.case(int(rng.integers(len(lists))))
            if (case.query.colour is not None) == coloured:
                break
        if rng.random() < 1 / 2:  # who is never shown another order learns to trust places
            order = rng.permutation(len(case.looks))
            case = Case(
                case.query,
                case.picture,
                tuple(case.candidates[place] for place in order),
                tuple(case.looks[place] for place in order),
            )
        cases.append(case)
    groups = [[case] for case in cases]
    return [
        questions.rankings(groups, partial(told_caption, rng=rng), rng),
        caption_batch(questions, max(1, count // 4), rng),
    ]
