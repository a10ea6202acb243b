"""A disk that is full for a while: MilvusDiskError, and all acknowledged rows, updates, deletes are there."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from support.indexing_child import open_store
from support.killed_states import node

from llama_index_multimodal_rerank import MilvusDiskError

TESTS = Path(__file__).parents[1]
ROWS = 40


def search(store: MilvusVectorStore) -> dict[str, int]:
    query = VectorStoreQuery(query_embedding=node("1", 1).embedding, similarity_top_k=1000)
    return {found.node_id: found.metadata["version"] for found in store.query(query).nodes or []}


def attempt(errors: list[str], action: Callable[[], Any]) -> bool:
    try:
        action()
    except Exception as error:
        errors.append(type(error).__name__ if isinstance(error, OSError) else f"{type(error)}: {error}")
        return False
    return True


class FullByLimit:
    """No file may grow: what is written to any fails, as on a full disk."""

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class FullByBallast:
    """A file fills the disk to the last byte."""

    def __init__(self, disk: Path) -> None:
        self.ballast = disk / "ballast"

    def fill(self) -> None:
        with self.ballast.open("wb", buffering=0) as file:
            for size in (4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def make_room(self) -> None:
        self.ballast.unlink()


def life(folder: Path, full: FullByLimit | FullByBallast, story: str) -> dict[str, Any]:
    """Add, update, delete, while the disk is full for a while; say what was acknowledged and is found."""
    store = open_store(str(folder / "m.db"))
    expected: dict[str, int] = {}
    errors: list[str] = []
    unknown: set[str] = set()

    def add(version: int, *rows: str) -> None:
        if attempt(errors, lambda: store.add([node(row, version) for row in rows])):
            expected.update(dict.fromkeys(rows, version))
        else:
            unknown.update(rows)

    def delete(row: str) -> None:
        if attempt(errors, lambda: store.delete_nodes([row])):
            expected.pop(row, None)
        else:
            unknown.add(row)

    add(1, *map(str, range(ROWS)))
    if story == "search":
        full.fill()
        for _ in range(2):
            attempt(errors, lambda: search(store))
        attempt(errors, lambda: store.client.flush("images"))
        full.make_room()
    elif story == "flush":
        search(store)
        add(2, "1", "2")
        delete("3")
        full.fill()
        attempt(errors, lambda: store.client.flush("images"))
        add(3, "4")
        delete("5")
        attempt(errors, lambda: search(store))
        full.make_room()
    elif story == "rename":
        full.fill()
        attempt(errors, lambda: store.client.rename_collection("images", "others"))
        full.make_room()
    elif story == "write":
        search(store)
        full.fill()
        add(2, "1")
        delete("2")
        full.make_room()
    now = search(store)
    add(1, "100")
    delete("7")
    add(5, "8")
    after = search(store)
    return {"errors": errors, "expected": expected, "unknown": sorted(unknown), "now": now, "after": after}


def tell(folder: str, disk: str, story: str) -> None:
    full = FullByBallast(Path(disk)) if disk else FullByLimit()
    sys.stdout.write(json.dumps(life(Path(folder), full, story)))


CHILD = "import sys; from milvus.test_full_disk import tell; tell(*sys.argv[1:])"
MOUNTED = 'mount -t tmpfs -o size=2m none "$1" && "$2" -c "$3" "$1" "$1" "$4" && cp -r "$1/m.db" "$5"'


@pytest.mark.parametrize("disk", ["limit", "tmpfs"])
@pytest.mark.parametrize("story", ["search", "flush", "rename", "write"])
def test_nothing_is_lost(tmp_path: Path, story: str, disk: str) -> None:
    def run(*command: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, cwd=TESTS, check=False)

    if disk == "limit":
        ran = run(sys.executable, "-c", CHILD, tmp_path, "", story)
        path = tmp_path / "m.db"
    else:
        mounted = tmp_path / "disk"
        mounted.mkdir()
        unshare = shutil.which("unshare")
        if not unshare or run(unshare, "-rm", "mount", "-t", "tmpfs", "none", mounted).returncode:
            pytest.skip("this user may mount nothing")
        path = tmp_path / "copied.db"
        ran = run(unshare, "-rm", "sh", "-c", MOUNTED, "sh", mounted, sys.executable, CHILD, story, path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["errors"]
    assert set(told["errors"]) == {"MilvusDiskError"}
    touched = {*told["unknown"], "100", "7", "8"}

    def known(found: dict[str, int]) -> dict[str, int]:
        return {row: version for row, version in found.items() if row not in told["unknown"]}

    assert known(told["after"]) == known(told["expected"])
    assert {k: v for k, v in told["now"].items() if k not in touched} == {
        k: v for k, v in told["expected"].items() if k not in touched
    }
    reopened = search(open_store(str(path)))
    assert known(reopened) == known(told["expected"])
    assert reopened == told["after"]  # nothing comes and goes


def test_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from milvus_lite.engine import flush

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    store = open_store(str(tmp_path / "m.db"))
    store.add([node("1", 1)])
    with monkeypatch.context() as patch:
        patch.setattr(flush, "write_data_file", fail)
        with pytest.raises(
            MilvusDiskError, match=r"m\.db.*No space left.*Make room and do the same again"
        ) as raised:
            search(store)
    assert isinstance(raised.value, OSError)
    assert search(store) == {"1": 1}


def test_a_flush_that_fails_for_another_reason_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from milvus_lite.engine import flush

    def fail(*arguments: Any) -> None:
        raise MemoryError

    store = open_store(str(tmp_path / "m.db"))
    other = open_store(str(tmp_path / "m.db"))
    store.add([node("1", 1)])
    with monkeypatch.context() as patch:
        patch.setattr(flush, "write_data_file", fail)
        with pytest.raises(Exception, match="MilvusException"):
            store.client.flush("images")
    other.add([node("2", 1)])
    assert search(other) == search(store) == {"1": 1, "2": 1}
