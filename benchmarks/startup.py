"""What does it cost to import the package, and to load its models?

    python -m benchmarks.startup --json out.json
    python -m benchmarks.startup --models bge phi3      # with Phi-3 Vision: 8.3 GB on disk and in memory

Every figure is the median of fresh processes that take turns. Imports are compared with those of
LlamaIndex's own vector store modules; loading with reading the weights' files (time) and with their size
(memory); the time from the start of the process to the first vector (for Phi-3 Vision: the first scores of
a sheet) with the import of torch, transformers and timm alone. Files were read before: the disk is not
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

MIB = 2**20
NAMES = "ImageTextQuery, Phi3VisionRerank, VisualizedBGEEmbedding, load_image_nodes, milvus_store"

IMPORTS = {
    "core": "import llama_index.core.vector_stores",
    "milvus": "import llama_index.vector_stores.milvus",
    "package": "import llama_index_multimodal_rerank",
    "names": f"from llama_index_multimodal_rerank import {NAMES}",
    "torch": "import torch, transformers, timm",
}
"""``names`` are those of the README's first program."""

SEQUENCES = {
    "nothing": [],
    "package": ["package"],
    "core, then package": ["core", "package"],
    "core, then names": ["core", "names"],
    "milvus": ["milvus"],
}
"""Processes of the first part, and what they import, one after the other."""

# The first argument is the time at which the process was asked for.
PRELUDE = """
import json, sys, time
now = time.time()
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
    except OSError:
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
steps = {}
def step(name, started):
    steps[name] = {"seconds": time.perf_counter() - started, "peak_rss": peak()}
"""
FINALE = """
print(json.dumps({"steps": steps, "since_start": time.time() - float(sys.argv[1]), "peak_rss": peak()}))
"""

READ = """
from pathlib import Path
started = time.perf_counter()
for file in sorted(Path(sys.argv[2]).glob("*.safetensors")):
    with file.open("rb", buffering=0) as stream:
        while stream.read(2 ** 24):
            pass
step("read", started)
"""

LOAD_BGE = """
started = time.perf_counter()
from PIL import Image
from llama_index_multimodal_rerank import VisualizedBGEEmbedding
import torch, transformers, timm
step("import", started)
started = time.perf_counter()
embed_model = VisualizedBGEEmbedding(model_name=sys.argv[2], device=sys.argv[3], dtype=sys.argv[4])
embed_model.model
step("load", started)
started = time.perf_counter()
embed_model.get_image_embedding(Image.new("RGB", (640, 480), "red"))
step("first", started)
"""

LOAD_PHI3 = """
started = time.perf_counter()
from PIL import Image
from llama_index_multimodal_rerank import Cell, LocalPhi3Vision, build_sheet
from llama_index_multimodal_rerank.vlm.protocols import RankRequest
import torch, transformers
step("import", started)
started = time.perf_counter()
vlm = LocalPhi3Vision(sys.argv[2], device=sys.argv[3], dtype=sys.argv[4], num_crops=int(sys.argv[5]))
vlm.load()
step("load", started)
started = time.perf_counter()
sheet = build_sheet([Cell(Image.new("RGB", (64, 48), c)) for c in ("red", "blue")], num_crops=vlm.num_crops)
vlm.label_logprobs([RankRequest((sheet.image,), "Which is red?", 2)])
step("first", started)
"""


class Code(NamedTuple):
    """Source code and its arguments."""

    source: str
    arguments: tuple[object, ...] = ()


def run(source: str, arguments: tuple[object, ...]) -> dict[str, Any]:
    """Run code in a fresh process and return what it reports."""
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-c", PRELUDE + source + FINALE, str(time.time()), *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def median_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every figure."""
    first = runs[0]
    return {
        "steps": {
            name: {
                figure: statistics.median(each["steps"][name][figure] for each in runs)
                for figure in first["steps"][name]
            }
            for name in first["steps"]
        },
        "since_start": statistics.median(each["since_start"] for each in runs),
        "peak_rss": statistics.median(each["peak_rss"] for each in runs),
    }


def take_turns(codes: dict[str, Code], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run every code by turns and return the medians, without a first round, which reads the disk."""
    unmeasured = 0 if options.tiny else 1
    rounds = [{name: run(*code) for name, code in codes.items()} for _ in range(unmeasured + options.repeats)]
    return {name: median_of([each[name] for each in rounds[unmeasured:]]) for name in codes}


def import_code(names: list[str]) -> Code:
    """Return code that imports some of :data:`IMPORTS`, a step each."""
    lines = [f"started = time.perf_counter()\n{IMPORTS[name]}\nstep({name!r}, started)" for name in names]
    return Code("\n".join(lines))


def measure_imports(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what importing costs."""
    codes = {title: import_code(names) for title, names in SEQUENCES.items()}
    found = take_turns(codes, options)
    nothing = found["nothing"]["peak_rss"]
    seconds = {
        title: {name: step["seconds"] for name, step in each["steps"].items()}
        for title, each in found.items()
    }
    core = seconds["core, then package"]["core"]
    return {
        "processes": {
            title: {
                "seconds": seconds[title],
                "added_rss": each["peak_rss"] - nothing,
            }
            for title, each in found.items()
        },
        # In one process, so that the two halves of the ratio had the same machine.
        "package_over_core": seconds["core, then package"]["package"] / core,
        "names_over_core": seconds["core, then names"]["names"] / seconds["core, then names"]["core"],
        "package_alone_over_core": seconds["package"]["package"] / core,
        "milvus_over_core": seconds["milvus"]["milvus"] / core,
    }


def main() -> None:
    """Parse arguments, measure, print tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="*", choices=["bge", "phi3"], default=["bge"])
    parser.add_argument("--bge", type=Path, help="its checkpoint, or where to keep the seeded one")
    parser.add_argument("--phi3", type=Path, help="its checkpoint, or where to keep the seeded one")
    parser.add_argument("--layers", type=int, help="decoder layers of Phi-3; fewer is not full size")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="tiny models: shows that it runs, not how fast")
    parser.add_argument("--device", help="torch device; default: the best one there is")
    parser.add_argument("--dtype", help="default: bfloat16 where the hardware computes in it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    # Before anything heavy is imported here: memory and cores are the children's.
    imports = measure_imports(options)
    print_imports(imports)
    report: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "repeats": options.repeats,
        "full_size": not options.tiny and options.layers is None,
        "imports": imports,
        "models": {},
    }
    if options.models:
        report["models"] = measure_models(options)
        print_models(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure_models(options: argparse.Namespace) -> dict[str, Any]:
    """Write the checkpoints and measure loading them, up to the first answer."""
    from llama_index_multimodal_rerank.models.hardware import resolve_device, resolve_dtype

    from ._checkpoints import checkpoint_bytes, phi3_vision_folder, visualized_bge_folder

    device = resolve_device(options.device)
    dtype = str(resolve_dtype(options.dtype, device)).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: getattr(options, name) or Path(temporary) / name for name in options.models}
        codes = {"torch": import_code(["torch"])}
        for name, folder in folders.items():
            if name == "bge":
                visualized_bge_folder(folder, tiny=options.tiny)
            else:
                phi3_vision_folder(folder, layers=options.layers, tiny=options.tiny)
            codes[f"read {name}"] = Code(READ, (folder,))
            arguments = (folder, device, dtype, 1 if options.tiny else 16)
            codes[f"load {name}"] = Code(LOAD_BGE if name == "bge" else LOAD_PHI3, arguments)
        sizes = {name: checkpoint_bytes(folder) for name, folder in folders.items()}
        found = take_turns(codes, options)
    return {
        name: {
            "device": str(device),
            "dtype": dtype,
            "checkpoint_bytes": sizes[name],
            **compare(found["torch"], found[f"read {name}"], found[f"load {name}"], sizes[name]),
        }
        for name in options.models
    }


def compare(torch: dict[str, Any], read: dict[str, Any], load: dict[str, Any], size: int) -> dict[str, Any]:
    """Compare loading with reading the files, and the first answer with importing torch."""
    steps = load["steps"]
    imported = steps["import"]["peak_rss"]
    return {
        "import_s": steps["import"]["seconds"],
        "load_s": steps["load"]["seconds"],
        "load_over_reading": steps["load"]["seconds"] / read["steps"]["read"]["seconds"],
        "first_s": steps["first"]["seconds"],
        "start_to_first_s": load["since_start"],
        "start_to_first_over_torch": load["since_start"] / torch["since_start"],
        "peak_rss": {name: step["peak_rss"] for name, step in steps.items()},
        "load_peak_over_checkpoint": (steps["load"]["peak_rss"] - imported) / size,
        "first_peak_over_checkpoint": (steps["first"]["peak_rss"] - imported) / size,
    }


def print_imports(imports: dict[str, Any]) -> None:
    """Print what importing costs."""
    from ._common import print_table

    print_table(
        [
            ("a process that imports", "seconds", "adds, MiB"),
            *(
                (
                    title,
                    " + ".join(f"{s:.4f}" for s in each["seconds"].values()),
                    int(each["added_rss"] / MIB),
                )
                for title, each in imports["processes"].items()
            ),
        ]
    )
    print(f"the package adds {imports['package_over_core']:.2%} to the import of core's vector stores,")
    print(f"the names of the README's program {imports['names_over_core']:.1%}; ", end="")
    print(f"the Milvus vector store alone takes {imports['milvus_over_core']:.2f} times as long as core's\n")


def print_models(report: dict[str, Any]) -> None:
    """Print what loading costs."""
    from ._common import print_table

    if not report["full_size"]:
        print("NOT full size:")
    print_table(
        [
            ("", "load, s", "x reading", "peak x weights", "start to first, s", "x import of torch"),
            *(
                (
                    f"{name}, {m['dtype']}, {m['checkpoint_bytes'] // MIB} MiB",
                    m["load_s"],
                    m["load_over_reading"],
                    m["load_peak_over_checkpoint"],
                    m["start_to_first_s"],
                    m["start_to_first_over_torch"],
                )
                for name, m in report["models"].items()
            ),
        ]
    )


if __name__ == "__main__":
    main()
