"""All that a process can leave of a Milvus Lite file when it is killed, recorded in one run.

Before each change that Python makes to the file system, and after each acknowledged write, the file is
copied: what a ``kill -9`` at that moment leaves. Of the files that were written to since, torn copies are
made, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from milvus_lite import server_manager_instance

from .indexing_child import DIM, open_store

Tree = dict[str, bytes | None]
"""Paths below a Milvus Lite file; bytes of a file, None of a folder."""

_TORN = (".tmp", ".arrow", ".parquet", ".prev")  # written in place; index files: see test_killed.py


def read_tree(folder: Path) -> Tree:
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def write_tree(tree: Tree, folder: Path) -> None:
    folder.mkdir()
    for name, content in tree.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@dataclass
class State:
    """What lies on the disk at one moment, and what had been promised."""

    moment: str
    tree: Tree
    rows: dict[str, int]
    """Acknowledged: ids and the versions of their rows."""
    under_way: dict[str, int | None]
    """Begun and not acknowledged: ids and the versions they may have, None when deleted."""
    dropping: bool

    def torn(self, before: Tree) -> Iterator[State]:
        for name, content in self.tree.items():
            old = before.get(name) or b""
            if content is None or content == old or not name.endswith(_TORN):
                continue
            start = len(old) if content.startswith(old) else 0  # a log grows
            kept = (start + len(content)) // 2
            moment = f"{self.moment}, {kept} of {len(content)} bytes of {name}"
            yield State(moment, self.tree | {name: content[:kept]}, self.rows, self.under_way, self.dropping)


def node(row: str, version: int) -> TextNode:
    """A row, its vector drawn from its id and version."""
    vector = np.random.default_rng([int(row), version]).normal(size=DIM)
    made = TextNode(id_=row, text=row, metadata={"version": version})
    made.embedding = (vector / np.linalg.norm(vector)).tolist()
    return made


@dataclass
class Recorder:
    path: Path
    states: list[State] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    under_way: dict[str, int | None] = field(default_factory=dict)
    doing: str = ""
    dropping: bool = False
    _recording: bool = False
    _copying: bool = False

    def __post_init__(self) -> None:
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._recording or self._copying:
            return
        writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            self._copy(f"{self.doing}: before {event} of {Path(str(arguments[0])).name}")

    def _copy(self, moment: str) -> None:
        self._copying = True
        state = State(moment, read_tree(self.path), dict(self.rows), dict(self.under_way), self.dropping)
        self._copying = False
        last = self.states[-1] if self.states else None
        if last and (last.tree, last.rows, last.under_way) == (state.tree, state.rows, state.under_way):
            return
        self.states.append(state)

    def open(self, **options: Any) -> MilvusVectorStore:
        self._recording = True
        return open_store(str(self.path), **options)

    def close(self, *, killed: bool = False) -> None:
        self._recording = False
        tree = read_tree(self.path)
        server_manager_instance.release_server(str(self.path))
        if killed:
            self.path.rename(self.path.with_name(f"closed-{len(self.states)}"))
            write_tree(tree, self.path)

    def add(self, store: MilvusVectorStore, version: int, *rows: str) -> None:
        self.doing = f"adding {rows} as {version}"
        self.under_way.update(dict.fromkeys(rows, version))
        store.add([node(row, version) for row in rows])
        self._copy(f"{self.doing}: about to be acknowledged")
        self.under_way.clear()
        self.rows.update(dict.fromkeys(rows, version))

    def delete(self, store: MilvusVectorStore, row: str) -> None:
        self.doing = f"deleting {row}"
        self.under_way[row] = None
        store.delete_nodes([row])
        self._copy(f"{self.doing}: about to be acknowledged")
        self.under_way.clear()
        del self.rows[row]

    def search(self, store: MilvusVectorStore) -> None:
        self.doing = "flushing"
        store.query(VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=1))
        _, lite, _ = server_manager_instance._servers[str(self.path)]
        lite.get_collection("images")._wait_for_bg()  # indexes, merging of segments


def record(path: str, folder: Path, answer: Connection) -> None:
    """Send the states of a life: made, filled, killed twice, segments merged, dropped and made again."""
    recorder = Recorder(Path(path))
    Path(path).mkdir()
    recorder.doing = "making"
    store = recorder.open()
    recorder.add(store, 1, "0", "1", "2", "3", "4")
    recorder.search(store)
    recorder.add(store, 2, "3", "5", "6", "7")
    recorder.delete(store, "0")
    recorder.add(store, 3, "0")
    recorder.delete(store, "1")
    recorder.close(killed=True)
    recorder.doing = "opening after a kill"
    store = recorder.open()
    recorder.add(store, 4, "4")
    recorder.delete(store, "7")
    recorder.add(store, 5, "7")
    recorder.close(killed=True)
    store = recorder.open()
    recorder.add(store, 6, "5")
    recorder.delete(store, "6")
    recorder.search(store)
    for row in ("8", "9"):
        recorder.add(store, 1, row)
        recorder.search(store)
    recorder.close()
    recorder.doing, recorder.dropping = "dropping", True
    recorder.open(overwrite=True)
    recorder.close()
    answer.send(recorder.states)
