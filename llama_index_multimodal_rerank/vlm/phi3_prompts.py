"""Prompts of Phi-3 Vision: from pictures and words to token ids and the features of the pictures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..images.sources import pixels_digest
from .control_tokens import ControlTokens
from .decoding import Prompt
from .permutation_constraint import ListTokens, tokenize_list

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..models.phi3_vision import Phi3VisionForConditionalGeneration, Phi3VisionProcessor
    from .protocols import ImagePrompt

_CONTEXT = "<|assistant|>\n"
_FEATURES_KEPT = 8
"""Pictures whose features are kept, of 15 MB each with 16 crops in bfloat16."""


class Phi3Prompts:
    """Makes prompts for a model, and keeps the features of the pictures that it saw last.

    Args:
        model: the model.
        processor: its processor.
    """

    def __init__(self, model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor) -> None:
        self._model, self._processor = model, processor
        self._control_tokens = ControlTokens(processor.tokenizer)
        self._features: OrderedDict[tuple[int, str], tuple[torch.Tensor, list[int]]] = OrderedDict()
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
            encoded = [self.encode(image, num_crops) for image in request.images]
            features += [each for each, _ in encoded]
            sizes.append([size for _, size in encoded])
        texts = [self.chat(request) for request in requests]
        inputs = self._processor(text=texts, image_sizes=sizes).to(self._model.device)
        return Prompt(inputs["input_ids"], inputs["attention_mask"], tuple(features))

    def chat(self, request: ImagePrompt) -> str:
        """Return a request in the form of a conversation, without control tokens in its words."""
        tags = "".join(f"<|image_{number}|>\n" for number in range(1, len(request.images) + 1))
        return f"<|user|>\n{tags}{self._control_tokens.broken(request.prompt)}<|end|>\n{_CONTEXT}"

    def encode(self, image: Image, num_crops: int) -> tuple[torch.Tensor, list[int]]:
        """Return a picture's features and padded size, kept for the next prompts about it."""
        key = num_crops, pixels_digest(image)
        if key not in self._features:
            pixels = self._processor.image_processor(image, num_crops=num_crops)
            features = self._model.get_image_features(pixels["pixel_values"], pixels["image_sizes"])
            self._features[key] = features[0], pixels["image_sizes"][0].tolist()
            while len(self._features) > _FEATURES_KEPT:
                self._features.popitem(last=False)
        self._features.move_to_end(key)
        return self._features[key]

    def list_tokens(self, num_labels: int, ending: str = "") -> ListTokens:
        """Return the pieces that rankings of so many labels are written with; see ``tokenize_list``."""
        key = (num_labels, ending)
        if key not in self._list_tokens:
            self._list_tokens[key] = tokenize_list(
                self._processor.tokenizer, num_labels, context=_CONTEXT, ending=ending
            )
        return self._list_tokens[key]
