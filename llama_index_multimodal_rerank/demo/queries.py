"""What people may ask of the drawn catalogue: a picture, a wish, or both; and what answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .drawing.looks import COLOURS, HELD_OUT, KINDS, SURFACES, Look

if TYPE_CHECKING:
    import numpy as np

KIND_WORDS = {
    "phone case": ("phone case", "phone cover"),
    "mug": ("mug", "cup"),
    "T-shirt": ("T-shirt", "tee"),
    "backpack": ("backpack", "rucksack"),
    "cushion": ("cushion", "pillow"),
    "shoe": ("shoe", "sneaker"),
    "umbrella": ("umbrella", "parasol"),
    "notebook": ("notebook", "notepad"),
    "tote bag": ("tote bag", "shopping bag"),
    "dress": ("dress", "gown"),
}

SURFACE_WORDS = {
    "leopard": ("leopard print", "leopard spots"),
    "zebra": ("zebra print", "zebra stripes"),
    "tiger": ("tiger print", "tiger stripes"),
    "dots": ("dots", "polka dots"),
    "plaid": ("plaid", "tartan"),
    "floral": ("flowers", "a floral print"),
    "waves": ("waves", "a wave pattern"),
    "stars": ("stars", "a star pattern"),
    "hearts": ("hearts", "a heart pattern"),
    "wood": ("wood grain", "a wood look"),
    "brick": ("bricks", "a brick pattern"),
    "scales": ("scales", "fish scales"),
    "stripes": ("stripes", "straight stripes"),
    "checks": ("checks", "a chessboard pattern"),
    "camouflage": ("camouflage", "a camouflage pattern"),
    "plain": ("no pattern", "nothing on it"),
}

SOURCES = {
    "leopard": "a leopard",
    "zebra": "a zebra",
    "tiger": "a tiger",
    "dots": "a ladybird with dots",
    "plaid": "a plaid blanket",
    "floral": "a meadow with flowers",
    "waves": "the sea with waves",
    "stars": "the sky with stars",
    "hearts": "balloons with hearts",
    "wood": "planks of wood",
    "brick": "a brick wall",
    "scales": "a fish with scales",
    "stripes": "an awning with stripes",
    "checks": "a chessboard with checks",
    "camouflage": "a camouflage tent",
    "plain": "a plain wall",
}
"""What shows a surface where it comes from."""

FAMILIES = ("pattern", "kind edit", "colour edit", "surface edit", "text", "image")
COMPOSED = FAMILIES[:4]
"""Families of queries that have a picture and words."""

_WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # family: (wordings trained on, wordings kept for evaluation)
    "pattern": (
        (
            "{a_kind} with this",
            "{a_kind} with this pattern",
            "{a_kind} with this print",
            "this print on {a_kind}",
            "this on {a_kind}",
            "{a_kind} that looks like this",
            "{a_kind} in this pattern, please",
            "I want this pattern on {a_kind}",
            "show me {a_kind} with this",
            "{kind} with this",
        ),
        ("I am looking for {a_kind} with this print", "this pattern, but on {a_kind}"),
    ),
    "kind edit": (
        (
            "the same as {a_kind}",
            "the same, but as {a_kind}",
            "this as {a_kind}",
            "{a_kind} like this one",
            "the same pattern on {a_kind}",
            "I want the same, but as {a_kind}",
        ),
        ("show me the same as {a_kind}, please",),
    ),
    "colour edit": (
        (
            "the same in {colour}",
            "the same, but {colour}",
            "this in {colour}",
            "this one in {colour}",
            "the {colour} one of this",
            "I want this in {colour}",
        ),
        ("show me the same in {colour}, please",),
    ),
    "surface edit": (
        (
            "the same with {surface}",
            "the same, but with {surface}",
            "this with {surface}",
            "this one with {surface}",
            "I want this with {surface}",
        ),
        ("show me this, but with {surface}, please",),
    ),
    "text": (
        (
            "{a_kind} with {surface}",
            "{a_colour} {kind} with {surface}",
            "{kind} with {surface}",
            "{colour} {kind} with {surface}",
            "I want {a_kind} with {surface}",
            "show me {a_colour} {kind} with {surface}",
        ),
        ("I am looking for {a_kind} with {surface}", "I am looking for {a_colour} {kind} with {surface}"),
    ),
    "image": (("",), ("",)),
}


@dataclass(frozen=True)
class DemoQuery:
    """A query, and what answers it.

    Attributes:
        family: one of ``FAMILIES``.
        text: its words; empty for pictures alone.
        picture: what its picture shows: a product, the source of a surface (one of ``SURFACES``), or None.
        kind: the kind of product that is wanted.
        surface: the surface that is wanted.
        colour: the colour that is wanted, or None if none was asked for.
    """

    family: str
    text: str
    picture: Look | str | None
    kind: str
    surface: str
    colour: str | None

    def is_answered_by(self, look: Look) -> bool:
        """Whether a product is what was asked for."""
        return (
            look.kind == self.kind
            and look.surface == self.surface
            and (self.colour is None or look.colour == self.colour)
        )


def make_query(
    family: str, target: Look, rng: np.random.Generator, *, unseen_wording: bool = False
) -> DemoQuery:
    """Make a query of a family that a product answers.

    Args:
        family: one of ``FAMILIES``.
        target: a product that answers it.
        rng: chooses words, and what the picture shows.
        unseen_wording: use wordings kept out of training instead of those trained on. Pictures of
            products with held-out looks are then allowed, too, as they are if the target has one.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    text = _pick(_WORDINGS[family][int(unseen_wording)], rng)
    filled = text.format(
        kind=(kind := _pick(KIND_WORDS[target.kind], rng)),
        a_kind=_with_article(kind),
        colour=target.colour,
        a_colour=_with_article(target.colour),
        surface=_pick(SURFACE_WORDS[target.surface], rng),
    )
    colour = target.colour if "colour}" in text else None
    picture = _picture(family, target, rng, held_out=unseen_wording or target.held_out)
    return DemoQuery(family, filled, picture, target.kind, target.surface, colour)


def _picture(family: str, target: Look, rng: np.random.Generator, *, held_out: bool) -> Look | str | None:
    if family == "text":
        return None
    if family == "pattern":
        return target.surface
    if family == "image":
        return target
    while True:
        other = Look(
            _pick(KINDS, rng) if family == "kind edit" else target.kind,
            _pick(SURFACES, rng) if family == "surface edit" else target.surface,
            _pick(COLOURS, rng) if family == "colour edit" else target.colour,
        )
        if other != target and (held_out or (other.kind, other.surface) not in HELD_OUT):
            return other


def describe(picture: Look | str) -> str:
    """Say in a few words what a query picture shows, as the demo's reranker was taught to."""
    if isinstance(picture, str):
        return SOURCES[picture]
    return f"{_with_article(picture.colour)} {picture.kind} with {SURFACE_WORDS[picture.surface][0]}"


def all_wordings() -> list[str]:
    """Return every template, for a tokenizer's vocabulary."""
    return [text for trained, kept in _WORDINGS.values() for text in (*trained, *kept) if text]


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
