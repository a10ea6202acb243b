"""What the demo's reranker is trained on: a query, candidates, and in which order they should end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import DemoQuery, describe, make_query
from llama_index_multimodal_rerank.reranking.prompts import (
    DEFAULT_CAPTION_PROMPT,
    DEFAULT_RANK_PROMPT,
    list_format,
    list_labels,
    query_variables,
)
from llama_index_multimodal_rerank.vlm.permutation_constraint import CLOSE, OPEN, REASON, SEPARATOR

from .pictures import Drawn
from .sheets import Pick

FAMILY_WEIGHTS = {
    "pattern": 0.46,
    "kind edit": 0.13,
    "colour edit": 0.08,
    "surface edit": 0.08,
    "text": 0.12,
    "image": 0.13,
}
_EDITS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("kind edit", ("kind",)),
    ("colour edit", ("colour",)),
    ("surface edit", ("surface",)),
    ("image", ()),
)
"""What can be asked about a picture of a product, and which part of it that changes."""

WINDOW = 9
"""Candidates on a sheet, as a rule and at most."""

STRANGERS = 0.4
"""Share of candidates that distractors stand in for."""

TIERS = 4
"""From 0, nothing right, to 3, what was asked for."""


@dataclass(frozen=True)
class Case:
    """One query with its candidates.

    Attributes:
        query: what is asked for.
        picture: its picture.
        candidates: in the order of their labels.
        looks: what they show.
    """

    query: DemoQuery
    picture: Pick | None
    candidates: tuple[Pick, ...]
    looks: tuple[Look, ...]

    @property
    def tiers(self) -> tuple[int, ...]:
        """How well each candidate fits."""
        return tuple(tier(self.query, look) for look in self.looks)


def some_count(rng: np.random.Generator) -> int:
    """Draw a number of candidates: nearly always nine, the reranker's window."""
    return WINDOW if rng.random() < 0.95 else int(rng.integers(2, WINDOW))


def tier(query: DemoQuery, look: Look) -> int:
    """Tell how well a product fits: 3 all, 2 kind and surface, 1 one of these, 0 neither."""
    if query.is_answered_by(look):
        return 3
    return (look.kind == query.kind) + (look.surface == query.surface)


class Cases:
    """Draws cases from training pictures.

    Args:
        products: candidates.
        asked: products that queries show.
        sources: sources of surfaces that queries show.
        distractors: pictures that stand in for candidates where only seeing is learnt.
    """

    def __init__(self, products: Drawn, asked: Drawn, sources: Drawn, distractors: Sequence[Drawn]) -> None:
        self.products, self.asked, self.sources, self.distractors = products, asked, sources, distractors
        self._looks = looks_of(products)
        self._by_kind = _grouped(products.labels[:, 0])
        self._by_surface = _grouped(products.labels[:, 1])
        self._by_both = _grouped(products.labels[:, 0] * len(SURFACES) + products.labels[:, 1])
        self._asked = _grouped(_look_number(asked.labels))
        self._sources = _grouped(sources.labels[:, 0])

    def query(self, rng: np.random.Generator) -> tuple[DemoQuery, Pick | None]:
        """Draw a query and its picture."""
        families = list(FAMILY_WEIGHTS)
        while True:
            family = families[int(rng.choice(len(families), p=list(FAMILY_WEIGHTS.values())))]
            target = self._looks[int(rng.integers(len(self._looks)))]
            query = make_query(family, target, rng)
            if query.picture is None:
                return query, None
            if isinstance(query.picture, str):
                pool, drawn = self._sources[SURFACES.index(query.picture)], self.sources
            else:
                number = _look_number(np.array([_indices(query.picture)]))[0]
                pool, drawn = self._asked.get(int(number), []), self.asked
            if len(pool):  # few pictures of queries do not hold every look
                return query, Pick(drawn, int(rng.choice(pool)))

    def pictured_query(self, rng: np.random.Generator) -> tuple[DemoQuery, Pick]:
        """Draw a query that has a picture, and the picture."""
        while True:
            query, picture = self.query(rng)
            if picture is not None:
                return query, picture

    def draw(self, rng: np.random.Generator, *, num_candidates: int | None = None) -> Case:
        """Draw a query, and candidates like those that a retriever returns, in any order."""
        query, picture = self.query(rng)
        n = num_candidates or some_count(rng)
        kind, surface = KINDS.index(query.kind), SURFACES.index(query.surface)
        right = int(rng.integers(0, min(n, 7)))
        chosen = self._some(self._by_both[kind * len(SURFACES) + surface], right, rng)
        while len(chosen) < n:
            draw = rng.random()
            if draw < 0.55:
                more = self._some(self._by_kind[kind], 1, rng)
            elif draw < 0.85:
                more = self._some(self._by_surface[surface], 1, rng)
            else:
                more = [int(rng.integers(len(self.products)))]
            chosen += [index for index in more if index not in chosen]
        rng.shuffle(chosen)
        return self.case(query, picture, chosen)

    def draw_group(self, rng: np.random.Generator, num_candidates: int, count: int) -> list[Case]:
        """Draw cases with the same picture and candidates, and different queries."""
        first = self.draw(rng, num_candidates=num_candidates)
        return [first, *(self._other_query(first, rng) for _ in range(count - 1))]

    def _other_query(self, case: Case, rng: np.random.Generator) -> Case:
        """Ask something else about the same picture: mostly for what one of the candidates is like."""
        shown = case.query.picture
        while True:
            like = case.looks[int(rng.integers(len(case.looks)))]
            if shown is None:
                family, target = "text", like
            elif isinstance(shown, str):
                family, target = "pattern", Look(like.kind, shown, like.colour)
            else:
                family, changed = _EDITS[int(rng.integers(len(_EDITS)))]
                target = replace(shown, **{part: getattr(like, part) for part in changed})
                if changed and target == shown:
                    continue  # no edit
            if not target.held_out:
                query = replace(make_query(family, target, rng), picture=shown)
                return replace(case, query=query)

    def with_distractors(self, case: Case, rng: np.random.Generator) -> Case:
        """Put distractors in the place of some candidates; what these show is no longer in ``looks``."""
        candidates = list(case.candidates)
        for place in range(len(candidates)):
            if rng.random() < STRANGERS:
                candidates[place] = self.distractor(rng)
        return replace(case, candidates=tuple(candidates))

    def distractor(self, rng: np.random.Generator) -> Pick:
        """Draw a picture that stands in for a candidate."""
        drawn = self.distractors[int(rng.integers(len(self.distractors)))]
        return Pick(drawn, int(rng.integers(len(drawn))))

    def case(self, query: DemoQuery, picture: Pick | None, candidates: Sequence[int]) -> Case:
        """Make a case of known candidates."""
        return Case(
            query,
            picture,
            tuple(Pick(self.products, index) for index in candidates),
            tuple(self._looks[index] for index in candidates),
        )

    @staticmethod
    def _some(pool: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:  # type: ignore[type-arg]
        return [int(index) for index in rng.choice(pool, size=min(count, len(pool)), replace=False)]


def looks_of(products: Drawn) -> list[Look]:
    """Return what each product is."""
    return [Look(KINDS[k], SURFACES[s], COLOURS[c]) for k, s, c in products.labels.tolist()]


def _indices(look: Look) -> tuple[int, int, int]:
    return KINDS.index(look.kind), SURFACES.index(look.surface), COLOURS.index(look.colour)


def _look_number(labels: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    numbers: np.ndarray = (labels[:, 0] * len(SURFACES) + labels[:, 1]) * len(COLOURS) + labels[:, 2]  # type: ignore[type-arg]
    return numbers


def _grouped(keys: np.ndarray) -> dict[int, np.ndarray]:  # type: ignore[type-arg]
    groups: dict[int, list[int]] = defaultdict(list)
    for index, key in enumerate(keys.tolist()):
        groups[key].append(index)
    return {key: np.array(members) for key, members in groups.items()}


# -- words ------------------------------------------------------------------------------------------


def rank_prompt(query: DemoQuery, num_candidates: int, *, caption: str | None, explain: bool) -> str:
    """Return the question as ``Phi3VisionRerank`` puts it."""
    return DEFAULT_RANK_PROMPT.format(
        **query_variables(query.text, has_picture=query.picture is not None, caption=caption),
        num_candidates=str(num_candidates),
        labels=list_labels(num_candidates),
        candidate_texts="",
        answer_format=list_format(explain=explain, declared=False),
    )


def caption_prompt() -> str:
    """Return the question for a caption as ``Phi3VisionRerank`` puts it."""
    return DEFAULT_CAPTION_PROMPT.format()


def caption_answer(query: DemoQuery) -> str:
    """Return the right caption."""
    if query.picture is None:
        raise ValueError("the query has no picture")
    return f"{describe(query.picture)}."


def best_order(case: Case, rng: np.random.Generator) -> list[int]:
    """Return labels from 0, the best tier first, equals in random order."""
    tiers = case.tiers
    shuffled = rng.permutation(len(tiers)).tolist()
    return sorted(shuffled, key=lambda label: -tiers[label])


def rank_answer(order: Sequence[int]) -> str:
    """Return the list as the constraint has it written."""
    return OPEN + SEPARATOR.join(str(label + 1) for label in order) + CLOSE


def reason_answer(case: Case, best: int) -> str:
    """Return the reason, with what leads to it."""
    verdict = "is what was asked for" if case.tiers[best] == TIERS - 1 else "comes closest"
    return f"{REASON} [{best + 1}] {verdict}: {describe(case.looks[best])}."
