"""What is asked of indexing by Ray whatever it writes to: kill -9, and the run after it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_multimodal_rerank import load_image_nodes

from .ray_doubles import PixelEmbedding, write_pictures
from .ray_driver import index

PATIENCE = 300.0
"""Seconds until a test gives up waiting for a process."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def key_of(vector: Any) -> str:
    """The key under which the double's journal has a vector."""
    return hashlib.sha256(np.asarray(vector, dtype=np.float32).tobytes()).hexdigest()[:16]


def expected_vectors(folder: Path) -> dict[str, np.ndarray]:
    """The vectors by node id, as one process makes them, through the way that pipelines take."""
    nodes = PixelEmbedding()(load_image_nodes(folder, on_error="skip"))
    return {node.node_id: np.asarray(node.embedding, dtype=np.float32) for node in nodes}


def check_killed_runs(
    folder: Path,
    target: dict[str, Any],
    read_rows: Callable[[], Iterator[dict[str, Any]]],
    *,
    count: int,
    bad: int,
) -> dict[str, int]:
    """Kill the driver of a run, then a worker of the next, which must complete it.

    Args:
        folder: for pictures, journal and report.
        target: for :func:`~.ray_driver.make_target`.
        read_rows: reads all rows, doubles included, each with id and embedding; none if there is nothing yet.
        count: pictures drawn.
        bad: how many of them are cut short.

    Returns:
        Counts for a report.
    """
    cut = write_pictures(folder / "pictures", count, bad)
    model = PixelEmbedding(journal=str(folder / "journal"), seconds=0.4)
    run = {
        "source": str(folder / "pictures"),
        "embedding": {"journal": model.journal, "seconds": model.seconds},
        "target": target,
        "report": str(folder / "bad.jsonl"),
    }
    log = folder / "driver.log"
    with log.open("wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-m", "support.ray_driver", json.dumps(run)], stdout=output, stderr=output
        )

    def is_in_mid_run() -> bool:
        assert driver.poll() is None, log.read_text("utf-8")[-3000:]
        return len(model.embedded) > count // 10 and any(True for _ in read_rows())

    wait_for(is_in_mid_run, "the first rows")
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(map(is_alive, model.processes)), "the workers of the killed driver to end")
    acknowledged = {row["id"]: key_of(row["embedding"]) for row in read_rows()}
    embedded_before, processes_before = len(model.embedded), set(model.processes)
    assert 0 < len(acknowledged) < count - bad

    killed: list[int] = []

    def kill_a_worker() -> None:
        wait_for(lambda: bool(set(model.processes) - processes_before), "a worker")
        killed.append(model.processes[-1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    result = index(run)
    killer.join()

    expected = expected_vectors(folder / "pictures")
    rows = [*read_rows()]
    vectors = {row["id"]: np.asarray(row["embedding"], dtype=np.float32) for row in rows}
    assert len(expected) == count - bad
    assert len(rows) == len(vectors) == count - bad  # complete, nothing twice
    assert vectors.keys() == expected.keys()
    difference = max(float(np.abs(vectors[id_] - expected[id_]).max()) for id_ in expected)
    assert difference < 1e-5
    # No acknowledged row is lost, and only the rest was embedded.
    assert {id_: key_of(vectors[id_]) for id_ in acknowledged} == acknowledged
    assert (result.written, result.kept) == (count - bad - len(acknowledged), len(acknowledged))
    again = model.embedded[embedded_before:]
    assert {*again} == {key_of(expected[id_]) for id_ in expected.keys() - acknowledged.keys()}
    # Of the killed worker's batches some are embedded again.
    assert len(killed) == 1
    assert len(set(model.processes) - processes_before) > 2
    assert [Path(path) for path, _ in sorted(result.skipped)] == cut
    report = [json.loads(line) for line in (folder / "bad.jsonl").read_text("utf-8").splitlines()]
    assert sorted(line["image"] for line in report) == [str(path) for path in cut]
    return {
        "rows": len(rows),
        "named": len(report),
        "rows when the driver was killed": len(acknowledged),
        "embedded by the killed run": embedded_before,
        "embedded by the next": len(again),
        "of these twice, after its worker was killed": len(again) - len({*again}),
    }
