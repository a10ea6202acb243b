"""How fast are pictures and texts embedded, and how much of the machine's ceiling is that?

    python -m benchmarks.embed --json out.json
    python -m benchmarks.embed --flat 10000
    python -m benchmarks.embed --model magiclens-base
    python -m benchmarks.embed --profile operations.md

Visualized BGE, or MagicLens, in its released size, with seeded weights. The baseline is the way the research
code is used: one item at a time, in float32, a picture decoded and then embedded. Ours is
``VisualizedBGEEmbedding``, or ``MagicLensEmbedding``. ``model`` is the bare module on batches that are ready
on the device: what decoding, batching and LlamaIndex cost is the difference between ours and it. What
decoding and the module allow together is the bound.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama_index.core.ingestion import IngestionPipeline

from llama_index_multimodal_rerank import ImageText, load_image_nodes, milvus_store
from llama_index_multimodal_rerank.embeddings.image_text_embedding import ImageTextEmbedding
from llama_index_multimodal_rerank.embeddings.local_model import BY_DEVICE

from ._bounds import as_markdown, bound, costly_operations, decode_rates, launch_share
from ._common import (
    alternate,
    ceilings,
    machine,
    parse_arguments,
    peak_device_memory,
    peak_rss,
    timed,
    write_jpegs,
    write_report,
)
from ._databases import temporary_databases
from ._embed_sides import BareModel, OneByOne, Vectors, count_flops, make_texts
from ._embed_tables import print_comparison, print_flat
from ._embedders import EMBEDDERS, Content, Embedder
from ._python_share import python_per_item

FLAT_SIZE = (96, 72)
FLAT_FILES = 100


def as_text(content: Content) -> str:
    """Return an item as the embedding takes it."""
    text, path = content
    return text if path is None else ImageText(text, path)


def measure(
    kind: str, contents: Sequence[Content], ours: ImageTextEmbedding, plain: OneByOne, options: Any
) -> dict[str, Any]:
    """Measure one kind of item: baseline, ours, and the module alone."""
    few = contents[: options.baseline_items]
    texts = [as_text(content) for content in contents]
    found: dict[str, Vectors] = {}

    def baseline() -> None:
        found["baseline"] = plain(few)

    def batched() -> None:
        found["ours"] = np.asarray(ours.get_text_embedding_batch(texts), dtype=np.float32)

    # Once each, untimed: libraries choose their kernels, files come into the page cache.
    plain(few[:2])
    with peak_device_memory(options.device) as memory:
        batched()
    own = type(plain.embedder)(ours.model)
    model = BareModel(own, contents, options.batch_size)
    model()
    flops = count_flops(own, contents) / len(contents)
    seconds = alternate(
        {"baseline": baseline, "ours": batched, "model": model}, options.repeats, options.device
    )
    per_item = {
        "baseline": seconds["baseline"] / len(few),
        "ours": seconds["ours"] / len(contents),
        "model": seconds["model"] / model.items,
    }
    ceiling = options.ceilings[options.dtype]
    return {
        "kind": kind,
        "items": len(contents),
        "baseline_items": len(few),
        "gflop_per_item": flops / 1e9,
        "items_per_s": {name: 1 / each for name, each in per_item.items()},
        "speedup": per_item["baseline"] / per_item["ours"],
        "speedup_of_model": per_item["baseline"] / per_item["model"],
        "ours_over_model_seconds": per_item["ours"] / per_item["model"],
        "mfu": flops / per_item["ours"] / ceiling,
        "mfu_of_model": flops / per_item["model"] / ceiling,
        "mfu_of_baseline": flops / per_item["baseline"] / options.ceilings[torch.float32],
        "launch_share": launch_share(model.run_one, options.device),
        "operations": costly_operations(model.run_one, options.device) if options.profile else [],
        "least_cosine_to_baseline": float((found["ours"][: len(few)] * found["baseline"]).sum(1).min()),
        **memory,
    }


def end_to_end(
    files: Sequence[Path], ours: ImageTextEmbedding, baseline_seconds: float, options: Any
) -> dict[str, Any]:
    """Bring a folder of JPEG files into Milvus Lite."""
    folder, count = files[0].parent, len(files)
    embedder = EMBEDDERS[options.model](ours.model)
    model = BareModel(embedder, [("", path) for path in files], options.batch_size)
    pipeline = IngestionPipeline(transformations=[ours], disable_cache=True)
    model()
    times: dict[str, list[float]] = {"model": [], "load_nodes": [], "embed": [], "insert": []}
    for _ in range(options.repeats):
        times["model"].append(timed(model, options.device).seconds / model.items)
        with temporary_databases() as database:
            store = milvus_store(database / "pictures.db", ours)
            store.add(list(pipeline.run(nodes=load_image_nodes(files[:1]))))  # a row that is replaced below
            # IngestionPipeline.run does just this when it is given the store; apart, each stage has its time.
            loaded = timed(lambda: load_image_nodes(folder), options.device)
            embedded = timed(lambda nodes=loaded.value: pipeline.run(nodes=nodes), options.device)  # type: ignore[misc]
            added = timed(lambda to=store, nodes=embedded.value: to.add(nodes), options.device)  # type: ignore[misc]
            rows = store.client.query(store.collection_name, filter="", output_fields=["count(*)"])
            if rows[0]["count(*)"] != count:
                raise RuntimeError(f"{count} pictures became {rows[0]['count(*)']} rows")
            store.client.close()
        for name, stage in (("load_nodes", loaded), ("embed", embedded), ("insert", added)):
            times[name].append(stage.seconds / count)
    median = {name: statistics.median(each) for name, each in times.items()}
    model_seconds = median.pop("model")
    total = sum(median.values())
    return {
        "items": count,
        "items_per_s": 1 / total,
        "share_of_stage": {name: each / total for name, each in median.items()},
        "over_model_seconds": total / model_seconds,
        "speedup": baseline_seconds / total,
    }


def flat(ours: ImageTextEmbedding, count: int, folder: Path) -> dict[str, Any]:
    """Embed many small pictures and see whether memory grows."""
    files = write_jpegs(folder, min(FLAT_FILES, count), FLAT_SIZE)
    items = [ImageText("", files[i % len(files)]) for i in range(count)]
    first = max(1, count // 10)
    ours.encode(items[:first])
    after_first = peak_rss()
    vectors = ours.encode(items[first:])
    at_end = peak_rss()
    return {
        "items": count,
        "first_items": first,
        "peak_rss_after_first": after_first,
        "peak_rss_at_end": at_end,
        "growth": at_end / after_first,
        "result_bytes": vectors.nbytes,
    }


def main() -> None:
    """Parse arguments, measure, print tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", choices=list(EMBEDDERS), default="base", help="Visualized BGE (base, m3) or MagicLens"
    )
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint, or where to keep the seeded one")
    parser.add_argument("--items", type=int, help="of each kind; default: 128, on a GPU 4096")
    parser.add_argument("--baseline-items", type=int, help="default: 16, on a GPU 128")
    parser.add_argument("--picture-size", type=int, nargs=2, default=[640, 480], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--batch-size", type=int, help="default: what suits the device")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write costly operations")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--torch-compile", action="store_true", help="compile our side's layers")
    parser.add_argument("--flat", type=int, metavar="N", help="embed N small pictures and watch memory, only")
    options = parse_arguments(parser)
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # Lite's server reports calls it does not know
    on_gpu = options.device.type == "cuda"
    options.items = options.items or (8 if options.tiny else 4096 if on_gpu else 128)
    options.baseline_items = min(
        options.items, options.baseline_items or (4 if options.tiny else 128 if on_gpu else 16)
    )
    dtype = str(options.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as temporary:
        place = options.checkpoint or Path(temporary) / "model"
        family = EMBEDDERS[options.model]
        if not place.is_file():
            family.write_folder(place, options.model, tiny=options.tiny)
        ours = family.embedding(
            model_name=str(place),
            device=str(options.device),
            dtype=dtype,
            embed_batch_size=options.batch_size or BY_DEVICE,
            torch_compile=options.torch_compile,
        )
        report: dict[str, Any] = {
            "machine": machine(options.device),
            "model": ours.fingerprint["model"],
            "full_size": family(ours.model).is_released_size(),
            "dtype": dtype,
            "torch_compile": options.torch_compile,
            "batch_size": options.batch_size,
            "picture_size": options.picture_size,
        }
        if options.flat:
            report["flat"] = flat(ours, options.flat, Path(temporary) / "pictures")
            print_flat(report["flat"])
        else:
            reference = family(family.load(place, options.device))
            compare(ours, reference, Path(temporary) / "pictures", report, options)
        report["peak_rss"] = peak_rss()
    write_report(options.json, report)


def compare(
    ours: ImageTextEmbedding, reference: Embedder, folder: Path, report: dict[str, Any], options: Any
) -> None:
    """Measure all kinds and the way into Milvus, and print it."""
    options.ceilings = ceilings([torch.float32, options.dtype], options.device, tiny=options.tiny)
    report["ceiling_tflops"] = {
        str(each).removeprefix("torch."): ceiling / 1e12 for each, ceiling in options.ceilings.items()
    }
    plain = OneByOne(reference)
    files = write_jpegs(folder, options.items, tuple(options.picture_size))
    texts = make_texts(reference, options.items)
    kinds: dict[str, list[Content]] = {
        "image": [("", path) for path in files],
        "image_text": list(zip(texts, files, strict=True)),
        "text": [(text, None) for text in texts],
    }
    report["results"] = [measure(kind, kinds[kind], ours, plain, options) for kind in reference.kinds]
    baseline = report["results"][0]["items_per_s"]["baseline"]
    report["decoded_per_s"] = decode_rates(ours.model, files)
    rates = report["results"][0]["items_per_s"]
    decoded = report["decoded_per_s"]["all_cores"]
    report["bound"] = bound(decoded, rates["model"], rates["ours"], options.device)
    in_turn = {kind: [as_text(content) for content in kinds[kind]] for kind in reference.kinds}
    report["python"] = python_per_item(ours, in_turn, files)
    report["end_to_end"] = end_to_end(files, ours, 1 / baseline, options)
    print_comparison(report)
    if options.profile:
        tables = [as_markdown(f"One batch: {r['kind']}", r["operations"]) for r in report["results"]]
        options.profile.write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
