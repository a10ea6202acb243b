"""How long does `first_token` take outside the model? Two versions of the package, in turns.

Started by ``python -m benchmarks.rerank --outside-the-model``. Each version runs in a process of its own, on
the same files, with a model double that answers at once. What is left: reading and decoding, drawing
the sheet, the HD transform, normalisation, digests, and the prompt. One process waits while the other works.
Where other work shares the cores, the processor time of all threads tells more than the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ._common import print_table, write_jpegs, write_report

ROOT = Path(__file__).parents[1]
NUM_CROPS = 16


def compare(options: argparse.Namespace) -> None:
    """Measure the version of ``--baseline`` and this one in turns, and print both."""
    repeats = options.repeats or 15
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        from ._checkpoints import phi3_vision_folder

        model = phi3_vision_folder(place / "model", tiny=True)
        (n, *_) = options.candidates
        size = tuple(options.picture_size)
        # Nothing is in a cache: every query has pictures of its own.
        files = [
            write_jpegs(place / "pictures", n + 1, size, first_seed=i * (n + 1)) for i in range(repeats + 1)
        ]
        before = place / "before"
        archive = subprocess.run(  # noqa: S603 (our own arguments)
            [  # noqa: S607
                "git",
                "archive",
                options.baseline,
                "llama_index_multimodal_rerank",
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(before, filter="data")
        versions = {"before": _Worker(before, model), "now": _Worker(ROOT, model)}
        try:
            seconds: dict[str, list[float]] = {name: [] for name in versions}
            worked: dict[str, list[float]] = {name: [] for name in versions}
            orders: dict[str, list[str]] = {name: [] for name in versions}
            for number, paths in enumerate(files):
                for name, worker in versions.items():
                    took, busy, order = worker.ask(paths)
                    if number:  # the first one loads, imports and plans the sheet
                        seconds[name].append(took)
                        worked[name].append(busy)
                        orders[name].append(order)
        finally:
            for worker in versions.values():
                worker.close()
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    processor = {name: statistics.median(each) for name, each in worked.items()}
    print(f"first_token outside the model, {n} candidates and a query of {size[0]} x {size[1]} pixels, JPEG")
    print_table(
        [
            ("version", "s/query", "least", "of before", "CPU s/query", "of before"),
            *(
                (
                    name,
                    each,
                    min(seconds[name]),
                    each / medians["before"],
                    processor[name],
                    processor[name] / processor["before"],
                )
                for name, each in medians.items()
            ),
        ]
    )
    write_report(
        options.json,
        {
            "outside_the_model": {
                name: {
                    "seconds": seconds[name],
                    "median": medians[name],
                    "processor_seconds": worked[name],
                    "processor_median": processor[name],
                }
                for name in medians
            },
            "baseline": options.baseline,
            "candidates": n,
            "picture_size": size,
        },
    )


class _Worker:
    """A process that reranks with one version of the package, when it is asked to."""

    def __init__(self, package: Path, model: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(package), str(ROOT)))}
        self._process = subprocess.Popen(  # noqa: S603 (our own arguments)
            [sys.executable, "-m", "benchmarks._outside_the_model", str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=package,
        )

    def ask(self, paths: Sequence[Path]) -> tuple[float, float, str]:
        """Rerank; the query's picture comes first. Returns seconds, those of all threads, and the order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*paths, sep="\t", file=self._process.stdin, flush=True)
        took, worked, order = self._process.stdout.readline().rstrip("\n").split("\t")
        return float(took), float(worked), order

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _serve(folder: str) -> None:
    """Rerank the files of each line of standard input, and print the seconds that it took."""
    import torch
    from llama_index.core.schema import NodeWithScore
    from transformers import DynamicCache
    from transformers.modeling_outputs import CausalLMOutputWithPast

    from llama_index_multimodal_rerank import ImageTextQuery, LocalPhi3Vision, Phi3VisionRerank, image_node
    from llama_index_multimodal_rerank.models.hd_geometry import TOKENS_PER_SIDE
    from llama_index_multimodal_rerank.models.phi3_vision.cache_argument import cache_argument

    vlm = LocalPhi3Vision(folder, device="cpu", dtype="float32", num_crops=NUM_CROPS)
    model = vlm.load().model
    hidden, vocabulary = model.config.hidden_size, model.config.vocab_size
    side = TOKENS_PER_SIDE

    def encode(views: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        return torch.zeros(side * rows * (side * columns + 1) + 1 + side * (side + 1), hidden)

    def forward(input_ids: torch.Tensor, **_: Any) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(
            logits=torch.zeros(len(input_ids), 1, vocabulary), **cache_argument(DynamicCache())
        )

    model.model.vision_embed_tokens.encode = encode
    model.forward = forward
    reranker = Phi3VisionRerank(model=vlm, strategy="first_token", caption=False, explain=False)
    for line in sys.stdin:
        query, *candidates = line.rstrip("\n").split("\t")
        nodes = [NodeWithScore(node=image_node(path), score=1.0) for path in candidates]
        bundle = ImageTextQuery("a phone case with this", image_path=query)
        started, worked = time.perf_counter(), time.process_time()
        ranked = reranker.postprocess_nodes(nodes, query_bundle=bundle)
        took, worked = time.perf_counter() - started, time.process_time() - worked
        print(
            took,
            worked,
            ",".join(str(each.node.metadata.get("rerank_rank")) for each in ranked),
            sep="\t",
            flush=True,
        )


if __name__ == "__main__":
    _serve(sys.argv[1])
