"""Indexing into Milvus Lite is killed at random moments; what was acknowledged stays."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from support import indexing_child
from support.drawing import draw_catalogue

PICTURES = 40
KILLS = 20

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.indexing_child"])  # imports once, not in every child
    with pytest.MonkeyPatch.context() as patch:  # Python before 3.12.8 preloads without this process's path
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalogue(tmp_path_factory.mktemp("catalogue"), PICTURES)


class Child:
    """A process and what it sends."""

    def __init__(
        self, processes: Any, task: Callable[[str, Path, Connection], None], uri: Path, folder: Path
    ) -> None:
        self.receiver, sender = processes.Pipe(duplex=False)
        self.process = processes.Process(target=task, args=(str(uri), folder, sender), daemon=True)
        self.process.start()
        sender.close()

    def messages(self) -> list[Any]:
        """Everything sent until the process ended."""
        received = []
        try:
            while True:
                received.append(self.receiver.recv())
        except EOFError:
            self.process.join()
        return received

    def stop(self, signal_number: int, *, after_messages: int, seconds: float) -> list[Any]:
        """Everything sent by a child that goes on until it is stopped."""
        received = [self.receiver.recv() for _ in range(after_messages)]
        time.sleep(seconds)
        assert self.process.is_alive()
        os.kill(self.process.pid, signal_number)
        return received + self.messages()


def acknowledged(messages: list[Any]) -> set[str]:
    return {node_id for batch in messages for node_id in batch}


def check(processes: Any, uri: Path, folder: Path, kept: set[str]) -> None:
    before, after = Child(processes, indexing_child.look_and_finish, uri, folder).messages()
    by_vector, by_id, rows = before
    assert kept <= set(by_vector)
    assert kept <= set(by_id)
    assert len(rows) == len(set(rows))
    for ids in after:
        assert len(ids) == len(set(ids)) == PICTURES


def test_twenty_kills(processes: Any, folder: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    for kill in range(KILLS):
        uri = tmp_path / f"{kill}.db"
        child = Child(processes, indexing_child.index_until_killed, uri, folder)
        messages = child.stop(
            signal.SIGKILL,
            after_messages=rng.randint(1, PICTURES // indexing_child.BATCH),
            seconds=rng.uniform(0, 0.03),
        )
        assert child.process.exitcode == -signal.SIGKILL
        check(processes, uri, folder, acknowledged(messages))


def test_kills_of_one_store_one_after_the_other(processes: Any, folder: Path, tmp_path: Path) -> None:
    rng = random.Random(8)
    kept: set[str] = set()
    for _ in range(5):
        child = Child(processes, indexing_child.index_until_killed, tmp_path / "m.db", folder)
        kept |= acknowledged(
            child.stop(signal.SIGKILL, after_messages=rng.randint(1, 6), seconds=rng.uniform(0, 0.02))
        )
    check(processes, tmp_path / "m.db", folder, kept)


@pytest.mark.parametrize("kept_bytes", [0, 100, 500])
def test_killed_while_an_index_file_was_written(
    processes: Any, folder: Path, tmp_path: Path, kept_bytes: int
) -> None:
    # Milvus Lite 3.2.2 would not load the collection any more.
    messages = Child(processes, indexing_child.index, tmp_path / "m.db", folder).messages()
    assert len(acknowledged(messages)) == PICTURES
    indexes = list((tmp_path / "m.db").glob("collections/*/partitions/*/indexes/*"))
    assert indexes
    for index in indexes:
        os.truncate(index, kept_bytes)
    check(processes, tmp_path / "m.db", folder, acknowledged(messages))


@pytest.mark.parametrize("words", ["none", "given", "computed"])
def test_killed_between_the_last_two_steps_of_a_flush(
    processes: Any, folder: Path, tmp_path: Path, words: str
) -> None:
    # Milvus Lite 3.2.2 would show every row twice.
    task = {
        "none": indexing_child.index_and_die_in_flush,
        "given": indexing_child.index_words_and_die_in_flush,
        "computed": indexing_child.index_bm25_and_die_in_flush,
    }[words]
    child = Child(processes, task, tmp_path / "m.db", folder)
    messages = child.messages()
    assert child.process.exitcode == -signal.SIGKILL
    kept = acknowledged(messages)
    assert len(kept) == PICTURES
    if words == "none":
        check(processes, tmp_path / "m.db", folder, kept)
    else:
        look = {"given": indexing_child.rows_of_words, "computed": indexing_child.rows_of_bm25}[words]
        ((by_words, rows),) = Child(processes, look, tmp_path / "m.db", folder).messages()
        assert len(rows) == len(set(rows)) == PICTURES
        assert len(by_words) == PICTURES


def test_disk_full(processes: Any, folder: Path, tmp_path: Path) -> None:
    messages = Child(processes, indexing_child.index_on_a_full_disk, tmp_path / "m.db", folder).messages()
    (error,) = (message for message in messages if len(message) == 3)
    assert error[:2] == ["MilvusDiskError", True]
    assert re.search(r"could not write to .*m\.db.*File too large.*add the same nodes again", error[2])
    kept = [message for message in messages if message is not error]
    assert 0 < messages.index(error) < len(kept)
    # All of them, also those added after the disk had been full, and with no clean end.
    assert len(acknowledged(kept)) == PICTURES
    check(processes, tmp_path / "m.db", folder, acknowledged(kept))


def test_control_c_leaves_a_usable_store(processes: Any, folder: Path, tmp_path: Path) -> None:
    child = Child(processes, indexing_child.index_until_killed, tmp_path / "m.db", folder)
    messages = child.stop(signal.SIGINT, after_messages=4, seconds=0.01)
    assert child.process.exitcode == 1  # an exception, not a signal that ended it
    check(processes, tmp_path / "m.db", folder, acknowledged(messages))
