"""What is no Milvus Lite database, and places that cannot be written, are named; nothing is written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.indexing_child import open_store
from support.killed_states import node

TESTS = Path(__file__).parents[1]


def test_a_file_of_milvus_lite_2(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table collections (name text)")
    connection.close()
    before = path.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(
            ValueError, match=r"m\.db' is a SQLite file, as Milvus Lite before 3 .*another name"
        ):
            open_store(str(path), overwrite=overwrite)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("content", "found"), [(b"", "an empty file"), (b"\xff\xd8", "a file")])
def test_a_file(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"m\.db' is {found}, and no Milvus Lite .*Choose another name"):
        open_store(str(path))
    assert path.read_bytes() == content


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("a")
    with pytest.raises(ValueError, match=r"notes/a/m\.db' cannot be made: '.*notes' is a file"):
        open_store(str(tmp_path / "notes" / "a" / "m.db"))


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "m.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"is a link to '.*elsewhere', which is not there"):
        open_store(str(tmp_path / "m.db"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.db")
    with pytest.raises(ValueError, match="is neither a file nor a folder"):
        open_store(str(tmp_path / "m.db"))


def test_a_link_to_a_database(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m.db").symlink_to(tmp_path / "elsewhere")
    open_store(str(tmp_path / "m.db")).add([node("1", 1)])
    assert (tmp_path / "elsewhere" / "collections" / "images").is_dir()


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux' /sys")
def test_a_place_where_nothing_can_be_made() -> None:
    with pytest.raises(PermissionError, match=r"/sys/m\.db': the place cannot be written.*Copy the whole"):
        open_store("/sys/m.db")


READ_ONLY = """
import sys
from support.indexing_child import open_store
try:
    open_store(sys.argv[1])
except OSError as error:
    print(type(error).__name__, error)
"""


def test_a_database_on_a_read_only_disk(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'
    in_namespace = [str(unshare), "-rm", "sh", "-c"]
    (tmp_path / "disk").mkdir()
    if not unshare or subprocess.run([*in_namespace, mount, "sh", tmp_path / "disk"], check=False).returncode:
        pytest.skip("this user may mount nothing")
    subprocess.run([sys.executable, "-c", READ_ONLY, tmp_path / "disk" / "m.db"], check=True, cwd=TESTS)
    before = sorted(path.name for path in (tmp_path / "disk").rglob("*"))
    open_mounted = f'{mount} && exec "$2" -c "$3" "$1/m.db"'
    ran = subprocess.run(
        [*in_namespace, open_mounted, "sh", tmp_path / "disk", sys.executable, READ_ONLY],
        check=True, capture_output=True, text=True, cwd=TESTS,
    )  # fmt: skip
    assert ran.stdout.startswith("PermissionError")
    assert "the place cannot be written" in ran.stdout
    assert "Traceback" not in ran.stderr
    assert sorted(path.name for path in (tmp_path / "disk").rglob("*")) == before
