"""Prompts of Phi-3 Vision: from pictures and words to token ids and the features of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .control_tokens import ControlTokens
from .permutation_constraint import ListTokens, tokenize_list
from .prompt_batch import Prompt
from .protocols import ImagePrompt, RankRequest
from .recent_features import RecentFeatures

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..models.phi3_vision import Phi3VisionForConditionalGeneration, Phi3VisionProcessor

_CONTEXT = "<|assistant|>\n"


class Phi3Prompts:
    """Makes prompts for a model, and keeps the features of the pictures that it saw last.

    Args:
        model: the model.
        processor: its processor.
    """

    def __init__(self, model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor) -> None:
        self._model, self._processor = model, processor
        self._control_tokens = ControlTokens(processor.tokenizer)
        self._features = RecentFeatures()
        self._list_tokens: dict[tuple[int, str], ListTokens] = {}

    def prepare(self, requests: Sequence[ImagePrompt], num_crops: int) -> Prompt:
        """Return a batch of prompts up to where the answers begin.

        Args:
            requests: what is asked.
            num_crops: tiles of 336 pixels a picture is cut into, at most.
        """
        features: list[torch.Tensor] = []
        sizes: list[list[list[int]]] = []
        for request in requests:
            # A sheet is drawn for its request: nobody asks for an equal one, and a digest costs milliseconds.
            by_content = not isinstance(request, RankRequest)
            encoded = [self.encode(image, num_crops, by_content=by_content) for image in request.images]
            features += [each for each, _ in encoded]
            sizes.append([size for _, size in encoded])
        texts = [self.chat(request) for request in requests]
        inputs = self._processor(text=texts, image_sizes=sizes)
        return Prompt(inputs["input_ids"], inputs["attention_mask"], tuple(features))

    def chat(self, request: ImagePrompt) -> str:
        """Return a request in the form of a conversation, without control tokens in its words."""
        tags = "".join(f"<|image_{number}|>\n" for number in range(1, len(request.images) + 1))
        return f"<|user|>\n{tags}{self._control_tokens.broken(request.prompt)}<|end|>\n{_CONTEXT}"

    def encode(
        self, image: Image, num_crops: int, *, by_content: bool = True
    ) -> tuple[torch.Tensor, list[int]]:
        """Return a picture's features and padded size, kept for the next prompts about it.

        Args:
            image: the picture.
            num_crops: tiles of 336 pixels it is cut into, at most.
            by_content: find what is kept of an equal picture, too, by its digest; else of this very object.
        """
        kept = self._features.find(image, num_crops, by_content=by_content)
        if kept is None:
            processor = self._processor.image_processor
            padded = processor.hd_transform(image, num_crops)
            size = [padded.height, padded.width]
            pixels = padded.tobytes()
            array = np.frombuffer(pixels, np.uint8).reshape(*size, 3)
            views = processor.views(array, self._model.device)
            (features,) = self._model.get_image_features(views[None], torch.tensor([size]))
            kept = features, size
            same = pixels if padded is image else None
            self._features.keep(image, num_crops, kept, by_content=by_content, pixels=same)
        return kept

    def list_tokens(self, num_labels: int, ending: str = "") -> ListTokens:
        """Return the pieces that rankings of so many labels are written with; see ``tokenize_list``."""
        key = (num_labels, ending)
        if key not in self._list_tokens:
            self._list_tokens[key] = tokenize_list(
                self._processor.tokenizer, num_labels, context=_CONTEXT, ending=ending
            )
        return self._list_tokens[key]
