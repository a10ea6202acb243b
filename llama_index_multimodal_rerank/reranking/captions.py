"""The caption of the query picture, asked for once a picture."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from ..images.sources import pixels_digest
from ..vlm.calls import Generate, ModelCalls, ask
from ..vlm.protocols import ImagePrompt
from .shortening import Shortener

if TYPE_CHECKING:
    from PIL.Image import Image

CAPTION_TOKENS = 64
CAPTIONS_KEPT = 1024

Captions = MutableMapping[tuple[str, str, str], str]
"""Captions made so far, by model, prompt and picture."""


def write_caption(
    picture: Image, prompt: str, *, model_name: str, captions: Captions, shortener: Shortener
) -> ModelCalls[str | None]:
    """Have a picture described, unless it was described before; None if the model says nothing.

    Args:
        picture: the picture.
        prompt: the question.
        model_name: name of the model that is asked.
        captions: where captions are kept.
        shortener: cuts what the model did not.
    """
    key = (model_name, prompt, pixels_digest(picture))
    if key not in captions:
        (answer,) = yield from ask(Generate((ImagePrompt((picture,), prompt),), CAPTION_TOKENS))
        if len(captions) >= CAPTIONS_KEPT:
            captions.clear()
        # Remote models have a length limit of their own, or none.
        captions[key] = shortener.cut(" ".join(answer.split()), 2 * CAPTION_TOKENS)
    return captions.get(key) or None
