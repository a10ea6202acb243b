"""Indexing on Ray: what a second actor adds, and 5,000 pictures through kill -9.

    python -m benchmarks.ray_indexing throughput
    python -m benchmarks.ray_indexing killed --count 5000 --bad 50
    .ci/with-milvus-server python -m benchmarks.ray_indexing killed --count 5000 --bad 50 --server

The model is a double: a vector is the picture made very small, and a batch takes a fixed time (it sleeps). So
``throughput`` says how well the stages keep actors busy, and nothing of a real model. ``killed`` runs what
tests/indexing runs with 300 pictures: a driver is killed in mid-run, then a worker of the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def throughput(folder: Path, *, actors: int, count: int, batch_size: int, seconds: float) -> float:
    """Return the pictures embedded in a second, from when every actor had begun its first batch."""
    from support.ray_doubles import PixelEmbedding
    from support.ray_driver import index

    journal = str(folder / f"journal-{actors}-{uuid.uuid4().hex}")
    index(
        {
            "source": str(folder / "pictures"),
            "embedding": {"journal": journal, "seconds": seconds},
            "target": {"folder": str(folder / f"rows-{uuid.uuid4().hex}")},
            "report": None,
            "actors": actors,
            "batch_size": batch_size,
        }
    )
    lines = PixelEmbedding(journal=journal).lines()
    first: dict[int, float] = {}
    for line in lines:
        first.setdefault(line["process"], line["began"])
    assert len(first) == actors, f"{len(first)} of {actors} actors had something to do"
    begin, end = max(first.values()), max(line["began"] for line in lines)
    return sum(len(line["pictures"]) for line in lines if begin <= line["began"] < end) / (end - begin)


def compare(folder: Path, *, count: int, turns: int) -> dict[str, Any]:
    """Measure one actor and two, in turns."""
    from support.ray_doubles import write_pictures

    write_pictures(folder / "pictures", count, 0)
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(turns):
        for actors, figures in found.items():
            figures.append(throughput(folder, actors=actors, count=count, batch_size=32, seconds=1.0))
    ratios = [two / one for one, two in zip(found[1], found[2], strict=True)]
    return {"pictures/s, 1 actor": found[1], "pictures/s, 2 actors": found[2], "ratio": ratios}


def killed(folder: Path, *, count: int, bad: int, server: bool) -> dict[str, Any]:
    """Kill a driver and a worker, and check what is there afterwards."""
    from support.ray_behaviour import check_killed_runs

    if not server:
        from llama_index_multimodal_rerank.indexing.parquet_folder import read_rows

        out = folder / "rows"
        return check_killed_runs(
            folder,
            {"folder": str(out), "rows_per_file": 100},
            lambda: (row for rows in read_rows(out) for row in rows),
            count=count,
            bad=bad,
        )
    from pymilvus import MilvusClient

    uri, collection = os.environ["MILVUS_TEST_URI"], f"ray_{uuid.uuid4().hex}"
    client = MilvusClient(uri)

    def rows() -> Iterator[dict[str, Any]]:
        if client.has_collection(collection):
            yield from client.query(
                collection, 'id != ""', ["id", "embedding"], limit=16_384, consistency_level="Strong"
            )

    try:
        target = {"uri": uri, "collection_name": collection, "batch_rows": 100}
        return check_killed_runs(folder, target, rows, count=count, bad=bad)
    finally:
        client.drop_collection(collection)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["throughput", "killed"])
    parser.add_argument("--count", type=int, default=960, help="pictures")
    parser.add_argument("--bad", type=int, default=50, help="of them cut short (killed)")
    parser.add_argument("--turns", type=int, default=1, help="runs of each number of actors (throughput)")
    parser.add_argument(
        "--server", action="store_true", help="write to the server of MILVUS_TEST_URI (killed)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()

    # Workers import the double, too; each has one thread.
    paths = [
        *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
        str(ROOT),
        str(ROOT / "tests"),
    ]
    os.environ.update(PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1", RAY_AUTH_MODE="disabled")
    from support.ray_driver import start_ray

    start_ray()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        if arguments.what == "throughput":
            result = compare(Path(name), count=arguments.count, turns=arguments.turns)
        else:
            result = killed(Path(name), count=arguments.count, bad=arguments.bad, server=arguments.server)
    result["seconds"] = round(time.perf_counter() - started)
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    import sys

    sys.path.append(str(ROOT / "tests"))
    main()
