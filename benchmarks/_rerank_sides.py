"""Both sides of ``python -m benchmarks.rerank``: the original recipe, and ours in its settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from llama_index.core.schema import NodeWithScore
from PIL import Image, ImageOps

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    LocalPhi3Vision,
    Phi3VisionRerank,
    image_node,
)
from llama_index_multimodal_rerank.models.phi3_vision.cache_argument import pop_cache
from llama_index_multimodal_rerank.reranking.prompts import (
    DEFAULT_CAPTION_PROMPT,
    DEFAULT_RANK_PROMPT,
    describe_query,
    list_format,
    list_labels,
)
from llama_index_multimodal_rerank.vlm.permutation_constraint import REASON, tokenize_list
from llama_index_multimodal_rerank.vlm.phi3_loading import LoadedPhi3Vision
from llama_index_multimodal_rerank.vlm.protocols import ImagePrompt
from llama_index_multimodal_rerank.vlm.static_decoding import StaticPrompt

from ._common import alternate, write_jpegs

WORDS = "a phone case with this"
RECIPE_CROPS = 16
"""Tiles that the baseline sees, at most: what the model's own configuration says."""
RECIPE_SIDE = 300
"""Side in pixels of a picture in the baseline's panorama."""
ASSISTANT = "<|assistant|>\n"

MODES: dict[str, dict[str, Any]] = {
    "listwise": {"strategy": "listwise", "caption": True, "explain": True},
    "listwise_no_caption": {"strategy": "listwise", "caption": False, "explain": True},
    "first_token_caption": {"strategy": "first_token", "caption": True, "explain": False},
    "first_token_reason": {"strategy": "first_token", "caption": False, "explain": True},
    "first_token": {"strategy": "first_token", "caption": False, "explain": False},
}
"""Settings of ``Phi3VisionRerank`` that are measured. ``first_token_reason`` asks about one sheet twice, and
shares its features."""


class FixedCaptions(LocalPhi3Vision):
    """A model with captions of so many tokens, as if they had ended there.

    Args:
        name: the checkpoint's folder, or a name for messages.
        caption_tokens: tokens of a caption.
        loaded: the model, where it is loaded already.
        **options: as for ``LocalPhi3Vision``.
    """

    def __init__(
        self, name: str, *, caption_tokens: int, loaded: LoadedPhi3Vision | None = None, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self.caption_tokens, self._loaded = caption_tokens, loaded

    def _load(self) -> LoadedPhi3Vision:
        return self._loaded or super()._load()

    def generate_batch(self, prompts: Sequence[ImagePrompt], *, max_new_tokens: int) -> list[str]:
        """Answer in ``caption_tokens`` tokens."""
        return super().generate_batch(prompts, max_new_tokens=min(max_new_tokens, self.caption_tokens))


@dataclass(frozen=True)
class Case:
    """A query and its candidates.

    Attributes:
        query: the file of the query's picture.
        candidates: the files of the candidates' pictures.
    """

    query: Path
    candidates: list[Path]


class Cases:
    """Cases of pictures that no other case has.

    Args:
        folder: where their files are written.
        size: width and height in pixels.
    """

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder, self.size, self.drawn = folder, size, 0

    def next(self, num_candidates: int) -> Case:
        """Draw the next case."""
        query, *candidates = write_jpegs(self.folder, num_candidates + 1, self.size, first_seed=self.drawn)
        self.drawn += num_candidates + 1
        return Case(query, candidates)


def panorama(query: Image.Image, candidates: Sequence[Image.Image]) -> Image.Image:
    """Put pictures together as the recipe does: a square of candidates, the query in a column on its left."""
    columns = math.ceil(math.sqrt(len(candidates)))
    rows = math.ceil(len(candidates) / columns)
    side = RECIPE_SIDE
    sheet = Image.new("RGB", ((columns + 1) * side, rows * side), "white")
    sheet.paste(ImageOps.expand(query.resize((side - 20, side - 20)), 10, "blue"), (0, (rows - 1) * side))
    for i, candidate in enumerate(candidates):
        framed = ImageOps.expand(candidate.resize((side - 4, side - 4)), 2, "black")
        sheet.paste(framed, ((1 + i % columns) * side, i // columns * side))
    return sheet


class OriginalRecipe:
    """The baseline: panorama, caption, then list and reason, with plain processor and ``generate``.

    Args:
        vlm: whose model and processor are used, past its caches.
        num_crops: tiles a panorama is seen in, at most.
        caption_tokens: tokens of the caption.
        reason_tokens: tokens of the reason.
    """

    def __init__(
        self, vlm: LocalPhi3Vision, *, num_crops: int, caption_tokens: int, reason_tokens: int
    ) -> None:
        self.vlm, self.num_crops = vlm, num_crops
        self.caption_tokens, self.reason_tokens = caption_tokens, reason_tokens

    def __call__(self, case: Case) -> str:
        """Return the answer to the second question."""
        n = len(case.candidates)
        query, *candidates = (Image.open(path).convert("RGB") for path in (case.query, *case.candidates))
        sheet = panorama(query, candidates)
        caption = self._answer(sheet, DEFAULT_CAPTION_PROMPT.template, self.caption_tokens)
        prompt = DEFAULT_RANK_PROMPT.format(
            query=describe_query(WORDS, has_picture=True, caption=caption),
            query_str=WORDS,
            query_caption=caption,
            num_candidates=str(n),
            labels=list_labels(n),
            candidate_texts="",
            answer_format=list_format(explain=True, declared=False),
        )
        return self._answer(sheet, prompt, list_tokens(self.vlm, n) + self.reason_tokens)

    def _answer(self, sheet: Image.Image, prompt: str, new_tokens: int) -> str:
        model, processor = self.vlm.load()
        text = f"<|user|>\n<|image_1|>\n{prompt.replace('<|', '< |')}<|end|>\n{ASSISTANT}"
        inputs = processor(text=text, images=[sheet], num_crops=self.num_crops).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=processor.tokenizer.pad_token_id,
            )
        new = output[0, inputs["input_ids"].shape[1] :]
        return str(processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


def list_tokens(vlm: LocalPhi3Vision, num_labels: int) -> int:
    """Return how many tokens a list of the labels, and the word before its reason, takes."""
    tokenizer = vlm.load().processor.tokenizer
    return tokenize_list(tokenizer, num_labels, context=ASSISTANT, ending=REASON).longest


def rerank(
    vlm: LocalPhi3Vision, cases: Sequence[Case], num_crops: int, **settings: Any
) -> list[list[NodeWithScore]]:
    """Rerank cases as a query engine would, several in a batch; captions of other calls are not known."""
    vlm.num_crops = num_crops  # one model for all settings: it is large
    reranker = Phi3VisionRerank(model=vlm, **settings)
    asked = [
        (
            [
                NodeWithScore(node=image_node(path), score=1 - i / 100)
                for i, path in enumerate(case.candidates)
            ],
            ImageTextQuery(WORDS, image_path=str(case.query)),
        )
        for case in cases
    ]
    if len(asked) == 1:
        ((nodes, query),) = asked
        return [reranker.postprocess_nodes(nodes, query_bundle=query)]
    return reranker.rerank_batch(asked, batch_size=len(asked), show_progress=False)


@contextmanager
def counted(model: torch.nn.Module) -> Iterator[Counter[str]]:
    """Count what the model does: tiles seen, prompt tokens read, passes to go on from there."""
    counts: Counter[str] = Counter(tiles_seen=0, prompt_tokens=0, decoding_steps=0)

    def decoder(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "inputs_embeds" in kwargs:  # a step over fixed memory, which is counted where it is asked for
            return
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        cache = pop_cache(dict(kwargs))
        if cache is not None and cache.get_seq_length():
            counts["decoding_steps"] += 1
        else:
            counts["prompt_tokens"] += ids.numel()

    def patches(_: Any, args: tuple[Any, ...]) -> None:
        counts["tiles_seen"] += len(args[0])

    image_tower = model.get_submodule("model.vision_embed_tokens.img_processor")
    patch_embedding = next(layer for layer in image_tower.modules() if isinstance(layer, torch.nn.Conv2d))
    hooks = [
        model.register_forward_pre_hook(decoder, with_kwargs=True),
        patch_embedding.register_forward_pre_hook(patches),
    ]
    plain = StaticPrompt.read

    def read(self: StaticPrompt, ids: torch.Tensor, *, keep: bool) -> torch.Tensor:
        counts["decoding_steps"] += 1
        return plain(self, ids, keep=keep)

    try:
        with patch.object(StaticPrompt, "read", read):  # a replayed graph runs no hooks
            yield counts
    finally:
        for hook in hooks:
            hook.remove()


def together(
    n: int, ours: dict[str, Callable[[list[Case]], Any]], cases: Cases, options: Any
) -> dict[str, dict[str, float]]:
    """Measure several queries at once against the same number one by one, in turns."""
    count, found = options.queries, {}
    for name, call in ours.items():
        if options.device.type == "cuda":
            for _ in range(2):  # captures what will come again
                call([cases.next(n) for _ in range(count)])
        queue = [[cases.next(n) for _ in range(count)] for _ in range(2 * options.repeats)]

        def at_once(call: Any = call, queue: Any = queue) -> None:
            call(queue.pop())

        def one_by_one(call: Any = call, queue: Any = queue) -> None:
            for case in queue.pop():
                call([case])

        calls = {"at_once": at_once, "one_by_one": one_by_one}
        seconds = alternate(calls, options.repeats, options.device)
        found[name] = {
            "queries": count,
            **{which: each / count for which, each in seconds.items()},
            "gain": seconds["one_by_one"] / seconds["at_once"],
        }
    return found
