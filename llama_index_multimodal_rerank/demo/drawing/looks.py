"""What a product of the drawn catalogue can be: its kind, its surface and its colour."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = (
    "phone case",
    "mug",
    "T-shirt",
    "backpack",
    "cushion",
    "shoe",
    "umbrella",
    "notebook",
    "tote bag",
    "dress",
)

SURFACES = (
    "leopard",
    "zebra",
    "tiger",
    "dots",
    "plaid",
    "floral",
    "waves",
    "stars",
    "hearts",
    "wood",
    "brick",
    "scales",
    "stripes",
    "checks",
    "camouflage",
    "plain",
)

COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "grey")

HELD_OUT = frozenset(
    (kind, SURFACES[(3 * place + 5 * step) % len(SURFACES)])
    for place, kind in enumerate(KINDS)
    for step in range(3)
)
"""(kind, surface) pairs that no checkpoint was trained on; the leopard phone case is one.

Three of each kind, and one to three of each surface, so that every kind and every surface was seen in
training, only not together.
"""


@dataclass(frozen=True)
class Look:
    """What a product is.

    Attributes:
        kind: one of ``KINDS``.
        surface: one of ``SURFACES``.
        colour: one of ``COLOURS``; that of the ground, on which the surface is drawn.

    Raises:
        ValueError: for any other kind, surface or colour.
    """

    kind: str
    surface: str
    colour: str

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, KINDS),
            ("surface", self.surface, SURFACES),
            ("colour", self.colour, COLOURS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")

    @property
    def held_out(self) -> bool:
        """Whether products of this kind and surface were kept out of training."""
        return (self.kind, self.surface) in HELD_OUT

    def __str__(self) -> str:
        return f"{self.colour} {self.surface} {self.kind}"
