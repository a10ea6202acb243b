"""How long does reranking one query take, beside the recipe that reads the sheet twice?

    python -m benchmarks.rerank --json out.json
    python -m benchmarks.rerank --layers 2 --candidates 9       # a dry run, not full size
    python -m benchmarks.rerank --queries 8 --profile operations.md
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
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llama_index_multimodal_rerank import LocalPhi3Vision

from ._bounds import as_markdown, costly_operations
from ._checkpoints import phi3_vision_folder
from ._common import (
    alternate,
    ceilings,
    flops_of,
    keeper,
    machine,
    parse_arguments,
    peak_device_memory,
    peak_rss,
    print_table,
    synchronize,
    timed,
    write_report,
)
from ._outside_the_model import compare
from ._rerank_bounds import bound_of, describe_bound, memory_speed
from ._rerank_sides import (
    MODES,
    RECIPE_CROPS,
    Case,
    Cases,
    FixedCaptions,
    OriginalRecipe,
    counted,
    list_tokens,
    rerank,
    together,
)
from ._seeded_phi3 import seeded_phi3_vision

NOTHING_YET = {"first_queries_s": {}, "together": {}, "operations": {}}

SEEDED = "seeded weights were made on the device"
LOADED = "weights are those of the checkpoint"


def measure(
    n: int,
    modes: dict[str, dict[str, Any]],
    vlm: LocalPhi3Vision,
    cases: Cases,
    options: Any,
    keep: Callable[..., None],
) -> None:
    """Measure the baseline and all modes for one number of candidates; ``keep`` each part as it is found."""
    model, device = vlm.load().model, options.device
    common = {"top_n": 3, "window": max(2, n), "max_new_tokens": options.reason_tokens}
    recipe = OriginalRecipe(
        vlm,
        num_crops=1 if options.tiny else RECIPE_CROPS,
        caption_tokens=options.caption_tokens,
        reason_tokens=options.reason_tokens,
    )
    answer: dict[str, Callable[[list[Case]], Any]] = {"baseline": lambda cases: recipe(cases[0])}
    first, *others = options.num_crops
    for num_crops in (first, *others):
        for name, settings in modes.items():
            named = name if num_crops == first else f"{name}_{num_crops}_tiles"
            answer[named] = partial(rerank, vlm, num_crops=num_crops, **{**common, **settings})
    # The first call of all finds nothing captured, and libraries that have yet to set themselves up.
    starting: dict[str, list[float]] = {}
    for name, call in answer.items():
        if device.type == "cuda" and name != "baseline":
            starting[name] = [timed(partial(call, [cases.next(n)]), device).seconds for _ in range(2)]
            keep(first_queries_s=dict(starting))
    warm = partial(rerank, vlm, [cases.next(n)], num_crops=first, **{**common, **MODES["first_token"]})
    flops = flops_of(warm)
    counts: dict[str, dict[str, int]] = {}
    memory: dict[str, dict[str, int]] = {}
    queue: dict[str, list[Case]] = {}
    for name, call in answer.items():
        if device.type == "cuda":
            call([cases.next(n)])
        # Drawn beforehand: no side pays for it.
        queue[name] = [cases.next(n) for _ in range(options.repeats)]

    def run(name: str) -> None:
        with counted(model) as seen, peak_device_memory(device) as peak:
            answer[name]([queue[name].pop()])
        counts[name], memory[name] = dict(seen), peak

    synchronize(device)
    seconds = alternate({name: partial(run, name) for name in answer}, options.repeats, device)
    ceiling = options.ceilings[options.dtype]
    ours = {name: answer[name] for name in modes}
    keep(
        list_tokens=list_tokens(vlm, n),
        first_token_tflop=flops / 1e12,
        first_token_mfu=flops / seconds["first_token"] / ceiling if "first_token" in seconds else None,
        modes={
            name: {
                "seconds_per_query": each,
                "speedup": seconds["baseline"] / each,
                **counts[name],
                **memory[name],
            }
            for name, each in seconds.items()
        },
    )
    bound: dict[str, Any] = {}
    for name, call in ours.items():
        bound[name] = bound_of(
            lambda call=call: call([cases.next(n)]),  # type: ignore[misc]
            model,
            device,
            ceiling=ceiling,
            speed=options.memory_speed,
        )
        keep(bound=dict(bound))
    if options.queries > 1:
        keep(together=together(n, ours, cases, options))
    if options.profile:
        keep(
            operations={
                name: costly_operations(lambda call=call: call([cases.next(n)]), device)  # type: ignore[misc]
                for name, call in ours.items()
            }
        )


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
    parser.add_argument("--queries", type=int, default=1, help="measure so many at once, too")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write costly operations")
    options = parse_arguments(parser)
    if options.outside_the_model:
        compare(options)
        return
    options.repeats = options.repeats or (5 if options.device.type == "cuda" else 1)
    options.num_crops = options.num_crops or [1 if options.tiny else RECIPE_CROPS]
    options.ceilings = ceilings([options.dtype], options.device, tiny=options.tiny)
    options.memory_speed = memory_speed(options.device, tiny=options.tiny)
    dtype = str(options.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as temporary:
        vlm = load(options, Path(temporary) / "model")
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
            "memory_gb_per_s": options.memory_speed / 1e9,
            "results": [],
        }
        print(f"Phi-3 Vision{'' if report['full_size'] else ' (NOT full size)'}, {dtype}")
        print(
            f"matrix products reach {report['ceiling_tflops']:.3g} TFLOP/s, a copy "
            f"{report['memory_gb_per_s']:.3g} GB/s"
        )
        print(f"{LOADED if options.checkpoint else SEEDED}; loading is not part of any figure\n")
        cases = Cases(Path(temporary) / "pictures", tuple(options.picture_size))
        for n in options.candidates:
            modes = {name: MODES[name] for name in options.modes}
            if n > 9 and "first_token" in modes:
                modes["first_token_windows_of_9"] = {**MODES["first_token"], "window": 9}
            result: dict[str, Any] = {"candidates": n, **NOTHING_YET}
            report["results"].append(result)
            measure(n, modes, vlm, cases, options, keeper(result, report, options.json))
            print_result(result)
        report["peak_rss"] = peak_rss()
    write_report(options.json, report)
    if options.profile:
        tables = [
            as_markdown(f"One query of {result['candidates']} candidates: {name}", operations)
            for result in report["results"]
            for name, operations in result["operations"].items()
        ]
        options.profile.write_text("\n".join(tables), encoding="utf-8")


def load(options: Any, folder: Path) -> FixedCaptions:
    """Load the checkpoint that was named, or make a seeded model on the device."""
    settings: dict[str, Any] = {
        "caption_tokens": options.caption_tokens,
        "device": str(options.device),
        "dtype": str(options.dtype).removeprefix("torch."),
        "num_crops": options.num_crops[0],
    }
    if options.checkpoint:
        return FixedCaptions(
            str(phi3_vision_folder(options.checkpoint, layers=options.layers, tiny=options.tiny)), **settings
        )
    loaded = seeded_phi3_vision(
        folder, device=options.device, dtype=options.dtype, layers=options.layers, tiny=options.tiny
    )
    return FixedCaptions("seeded Phi-3 Vision", loaded=loaded, **settings)


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
    for name, bound in result["bound"].items():
        print(describe_bound(name, bound))
    for name, (one, two) in result["first_queries_s"].items():
        print(f"{name}: its first call {one:.3g} s, its second {two:.3g} s")
    for name, each in result["together"].items():
        print(
            f"{name}: {each['queries']} queries at once {each['at_once']:.3g} s each, one by one "
            f"{each['one_by_one']:.3g}: {each['gain']:.2f} times the rate"
        )
    print()


if __name__ == "__main__":
    main()
