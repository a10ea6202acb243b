"""Models for the tests that really look at the sheet: they read colours where the cells are."""

from __future__ import annotations

import re
import threading

import numpy as np
import torch

from llama_index_multimodal_rerank.reranking.sheet_layout import plan_sheet
from llama_index_multimodal_rerank.vlm.protocols import LabelRanking

QUERY_RED = (170, 0, 0)


def has_query(image):
    """Whether the red frame is on a sheet."""
    return bool((np.asarray(image) == QUERY_RED).all(axis=-1).any())


def look(image, n, *, num_crops=16):
    """The red value in the middle of every cell."""
    layout = plan_sheet(n, query=has_query(image), num_crops=num_crops)
    assert image.size == layout.size
    middles = [
        ((c.picture.left + c.picture.right) // 2, (c.picture.top + c.picture.bottom) // 2)
        for c in layout.cells
    ]
    return [image.getpixel(middle)[0] for middle in middles]


def by_redness(image, n):
    """Labels from 0, the reddest first."""
    red = look(image, n)
    return sorted(range(n), key=lambda label: -red[label])


class TextModel:
    """Ranks by redness and answers in text. Counts its calls and checks that it is asked politely."""

    model_name = "text-model"

    def __init__(self):
        self.prompts, self.images, self.captions = [], [], 0
        self._lock = threading.Lock()

    def generate(self, images, prompt, *, max_new_tokens):
        assert max_new_tokens > 0
        (image,) = images
        asked = re.search(r"Rank all (\d+) candidates", prompt)
        with self._lock:
            if asked is None:
                self.captions += 1
                return " A reddish  blob. "
            self.prompts.append(prompt)
            self.images.append(image)
        order = by_redness(image, int(asked.group(1)))
        return (
            "Ranking: " + " > ".join(f"[{label + 1}]" for label in order) + "\nReason: the reddest of all 9."
        )


class LogitModel(TextModel):
    """Has label logits: the red values over 32."""

    model_name = "logit-model"

    def label_logprobs(self, requests):
        self.prompts += [request.prompt for request in requests]
        return [[red / 32 for red in look(request.images[0], request.num_labels)] for request in requests]


class ConstrainedTextModel(LogitModel):
    """Writes rankings under a constraint of its own: it cannot err."""

    model_name = "constrained-model"

    def __init__(self):
        super().__init__()
        self.batches = []

    def rank_labels(self, requests, *, max_new_tokens, order=None):
        self.batches.append((len(requests), max_new_tokens, order))
        rankings = []
        for request in requests:
            red = torch.tensor(look(request.images[0], request.num_labels), dtype=torch.float64) / 32
            chosen = tuple(order) if order is not None else tuple(torch.argsort(-red, stable=True).tolist())
            steps = [
                float(torch.softmax(red[list(chosen[place:])], 0)[0]) for place in range(request.num_labels)
            ]
            text = f"label {chosen[0] + 1} is red" if max_new_tokens else ""
            rankings.append(LabelRanking(chosen, tuple(steps), text))
        return rankings


class PrefillingTextModel(ConstrainedTextModel):
    """Goes on from what it has read: counts what it reads, and never reads a sheet twice."""

    model_name = "prefilling-model"

    def __init__(self):
        super().__init__()
        self.read, self.ranked = 0, []

    def label_logprobs(self, requests):
        self.read += len(requests)
        return super().label_logprobs(requests)

    def prefill_requests(self, requests):
        return Prefilled(self, requests)


class Prefilled:
    """The handle of ``PrefillingTextModel``."""

    def __init__(self, model, requests):
        self.model, self.requests = model, requests
        self.label_logprobs = model.label_logprobs(requests)

    def rank_labels(self, *, max_new_tokens, order=None):
        self.model.ranked.append((len(self.requests), max_new_tokens, order))
        return ConstrainedTextModel().rank_labels(self.requests, max_new_tokens=max_new_tokens, order=order)


class Scripted:
    """Gives the answers it was given, one after the other; an exception is raised."""

    model_name = "scripted"

    def __init__(self, *answers):
        self.answers, self.prompts = list(answers), []

    def generate(self, images, prompt, *, max_new_tokens):
        if "Rank all" not in prompt:
            return "a caption"
        self.prompts.append(prompt)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer
