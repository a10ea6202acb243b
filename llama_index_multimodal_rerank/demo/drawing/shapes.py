"""The shape of each kind of product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from .hard_goods import mug, notebook, phone_case, shoe, umbrella
from .outlines import Shape
from .soft_goods import backpack, cushion, dress, t_shirt, tote_bag

SHAPES: Mapping[str, Callable[[np.random.Generator], Shape]] = MappingProxyType(
    {
        "phone case": phone_case,
        "mug": mug,
        "T-shirt": t_shirt,
        "backpack": backpack,
        "cushion": cushion,
        "shoe": shoe,
        "umbrella": umbrella,
        "notebook": notebook,
        "tote bag": tote_bag,
        "dress": dress,
    }
)
"""Of each of ``looks.KINDS``: draws one product's shape; proportions vary a little with the generator."""
