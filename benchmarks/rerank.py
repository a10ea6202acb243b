"""How long does reranking one query take, beside the recipe that reads the sheet twice?

    python -m benchmarks.rerank --json out.json
    python -m benchmarks.rerank --layers 2 --candidates 9       # a dry run, not full size
    python -m benchmarks.rerank --outside-the-model --baseline REVISION    # decode, sheet, HD transform

Phi-3 Vision in its released size with seeded weights, 8.3 GB in bfloat16. The baseline is the original recipe
on the same model, in the same dtype: a panorama of squares of 300 pixels and a question for a caption,
answered freely; the panorama again and a question for list and reason, answered freely. Ours is
``Phi3VisionRerank``.

Random weights know no end of an answer. So all sides write the same, fixed numbers of tokens: those of a
caption and of a reason (``--caption-tokens``, ``--reason-tokens``), and those that the list takes. Every call
gets pictures of its own, so that nothing is answered from a cache.

Source of the recipe: https://milvus.io/docs/multimodal_rag_with_milvus.md, whose one published reason has 81
tokens of Phi-3's tokenizer.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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

from ._checkpoints import phi3_vision_folder
from ._common import (
    alternate,
    ceilings,
    flops_of,
    machine,
    parse_arguments,
    peak_device_memory,
    peak_rss,
    print_table,
    synchronize,
    write_jpegs,
    write_report,
)
from ._outside_the_model import compare

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
    """The local model, whose captions end after a number of tokens, as captions do.

    Args:
        folder: the checkpoint.
        caption_tokens: tokens of a caption.
        **options: as for ``LocalPhi3Vision``.
    """

    def __init__(self, folder: str, *, caption_tokens: int, **options: Any) -> None:
        super().__init__(folder, **options)
        self.caption_tokens = caption_tokens

    def generate(self, images: Sequence[Image.Image], prompt: str, *, max_new_tokens: int) -> str:
        """Answer in ``caption_tokens`` tokens."""
        return super().generate(images, prompt, max_new_tokens=min(max_new_tokens, self.caption_tokens))


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


def rerank(vlm: LocalPhi3Vision, case: Case, num_crops: int, **settings: Any) -> list[NodeWithScore]:
    """Rerank a case as a query engine would; captions of other calls are not known."""
    vlm.num_crops = num_crops  # one model for all settings: it is large
    reranker = Phi3VisionRerank(model=vlm, **settings)
    nodes = [
        NodeWithScore(node=image_node(path), score=1 - i / 100) for i, path in enumerate(case.candidates)
    ]
    return reranker.postprocess_nodes(nodes, query_bundle=ImageTextQuery(WORDS, image_path=str(case.query)))


@contextmanager
def counted(model: torch.nn.Module) -> Iterator[Counter[str]]:
    """Count what the model does: tiles seen, prompt tokens read, passes to go on from there."""
    counts: Counter[str] = Counter(tiles_seen=0, prompt_tokens=0, decoding_steps=0)

    def decoder(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
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
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def measure(
    n: int, modes: dict[str, dict[str, Any]], vlm: LocalPhi3Vision, cases: Cases, options: Any
) -> dict[str, Any]:
    """Measure the baseline and all modes for one number of candidates."""
    model = vlm.load().model
    common = {"top_n": 3, "window": max(2, n), "max_new_tokens": options.reason_tokens}
    answer: dict[str, Callable[[Case], Any]] = {
        "baseline": OriginalRecipe(
            vlm,
            num_crops=1 if options.tiny else RECIPE_CROPS,
            caption_tokens=options.caption_tokens,
            reason_tokens=options.reason_tokens,
        ),
    }
    first, *others = options.num_crops
    for num_crops in (first, *others):
        for name, settings in modes.items():
            named = name if num_crops == first else f"{name}_{num_crops}_tiles"
            answer[named] = partial(rerank, vlm, num_crops=num_crops, **{**common, **settings})
    warm = partial(rerank, vlm, cases.next(n), num_crops=first, **{**common, **MODES["first_token"]})
    flops = flops_of(warm)  # and the weights are read from disk now, where they were only mapped
    counts: dict[str, dict[str, int]] = {}
    memory: dict[str, dict[str, int]] = {}
    queue: dict[str, list[Case]] = {}
    for name, call in answer.items():
        if options.device.type == "cuda":
            call(cases.next(n))
        # Drawn beforehand: no side pays for it.
        queue[name] = [cases.next(n) for _ in range(options.repeats)]

    def run(name: str) -> None:
        with counted(model) as seen, peak_device_memory(options.device) as peak:
            answer[name](queue[name].pop())
        counts[name], memory[name] = dict(seen), peak

    synchronize(options.device)
    seconds = alternate({name: partial(run, name) for name in answer}, options.repeats, options.device)
    ceiling = options.ceilings[options.dtype]
    return {
        "candidates": n,
        "list_tokens": list_tokens(vlm, n),
        "first_token_tflop": flops / 1e12,
        "first_token_mfu": flops / seconds["first_token"] / ceiling if "first_token" in seconds else None,
        "modes": {
            name: {
                "seconds_per_query": each,
                "speedup": seconds["baseline"] / each,
                **counts[name],
                **memory[name],
            }
            for name, each in seconds.items()
        },
    }


def main() -> None:
    """Parse arguments, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--checkpoint", type=Path, help="a checkpoint's folder, or where to keep the seeded one"
    )
    parser.add_argument("--layers", type=int, help="decoder layers of the seeded one; fewer is not full size")
    parser.add_argument("--candidates", type=int, nargs="+", default=[9, 25])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--caption-tokens", type=int, default=20)
    parser.add_argument("--reason-tokens", type=int, default=80)
    parser.add_argument(
        "--num-crops",
        type=int,
        nargs="+",
        help="tiles our sheet is seen in, at most; each of some is measured; default: 16, tiny: 1",
    )
    parser.add_argument("--picture-size", type=int, nargs=2, default=[640, 480], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--repeats", type=int, help="default: 1, on a GPU 5")
    parser.add_argument(
        "--outside-the-model",
        action="store_true",
        help="measure what first_token does beside the model instead, against another version of the package",
    )
    parser.add_argument("--baseline", default="HEAD", help="that version, a revision of git; default: HEAD")
    options = parse_arguments(parser)
    if options.outside_the_model:
        compare(options)
        return
    options.repeats = options.repeats or (5 if options.device.type == "cuda" else 1)
    options.num_crops = options.num_crops or [1 if options.tiny else RECIPE_CROPS]
    options.ceilings = ceilings([options.dtype], options.device, tiny=options.tiny)
    dtype = str(options.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = phi3_vision_folder(
            options.checkpoint or Path(temporary) / "model", layers=options.layers, tiny=options.tiny
        )
        vlm = FixedCaptions(
            str(folder),
            caption_tokens=options.caption_tokens,
            device=str(options.device),
            dtype=dtype,
            num_crops=options.num_crops[0],
        )
        config = vlm.load().model.config
        report: dict[str, Any] = {
            "machine": machine(options.device),
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "full_size": (config.num_hidden_layers, config.hidden_size) == (32, 3072),
            "dtype": dtype,
            "num_crops": options.num_crops,
            "caption_tokens": options.caption_tokens,
            "reason_tokens": options.reason_tokens,
            "repeats": options.repeats,
            "ceiling_tflops": options.ceilings[options.dtype] / 1e12,
            "results": [],
        }
        print(f"Phi-3 Vision{'' if report['full_size'] else ' (NOT full size)'}, {dtype}")
        print(f"matrix products reach {report['ceiling_tflops']:.3g} TFLOP/s\n")
        cases = Cases(Path(temporary) / "pictures", tuple(options.picture_size))
        for n in options.candidates:
            modes = {name: MODES[name] for name in options.modes}
            if n > 9 and "first_token" in modes:
                modes["first_token_windows_of_9"] = {**MODES["first_token"], "window": 9}
            result = measure(n, modes, vlm, cases, options)
            report["results"].append(result)
            print_result(result)
        report["peak_rss"] = peak_rss()
    write_report(options.json, report)


def print_result(result: dict[str, Any]) -> None:
    """Print what was measured for one number of candidates."""
    head = (f"{result['candidates']} candidates", "s/query", "speedup", "tiles", "prompt tokens", "steps")
    print_table(
        [
            head,
            *(
                (
                    name,
                    m["seconds_per_query"],
                    m["speedup"],
                    m["tiles_seen"],
                    m["prompt_tokens"],
                    m["decoding_steps"],
                )
                for name, m in result["modes"].items()
            ),
        ]
    )
    if result["first_token_mfu"] is not None:
        print(f"first_token: {result['first_token_tflop']:.3g} TFLOP, MFU {result['first_token_mfu']:.2f}\n")


if __name__ == "__main__":
    main()
