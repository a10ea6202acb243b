"""Words that no training picture leads to: what is never learnt against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llama_index_multimodal_rerank.demo.drawing.looks import HELD_OUT, KINDS, SURFACES
from llama_index_multimodal_rerank.demo.queries import SURFACE_WORDS

Encode = Callable[[str], Sequence[int]]


class HeldOutWords:
    """Tells which tokens of a description lead to held-out pairs alone.

    No picture in training shows an umbrella with stripes, so who is taught to describe something with
    stripes learns above all that it is never an umbrella; see :func:`.vision.spare_held_out`.

    Args:
        encode: from text to its token ids.
    """

    def __init__(self, encode: Encode) -> None:
        self._words = {
            (kind, surface): tuple(encode(f" {kind} with {SURFACE_WORDS[surface][0]}."))
            for kind in KINDS
            for surface in SURFACES
        }

    def barred(self, kind: str, surface: str) -> list[tuple[int, int]]:
        """Return places, from the kind's first token on, and tokens there that lead to held-out pairs alone.

        Args:
            kind: what is shown.
            surface: what is shown.
        """
        own = self._words[kind, surface]
        ways: dict[tuple[int, int], list[bool]] = {}
        for pair in [(other, surface) for other in KINDS] + [(kind, other) for other in SURFACES]:
            for place, (told, other) in enumerate(zip(own, self._words[pair], strict=False)):
                if told != other:
                    ways.setdefault((place, other), []).append(pair in HELD_OUT)
                    break
        return [way for way, held_out in ways.items() if all(held_out)]
