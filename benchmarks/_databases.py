"""A folder for Milvus Lite databases that are of no use afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_databases() -> Iterator[Path]:
    """Make a folder for databases; at the end close those in it, and remove it.

    Closing a client leaves its database open until the process ends.
    """
    from milvus_lite import server_manager_instance

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            yield folder
        finally:
            for path in folder.glob("*.db"):
                server_manager_instance.release_server(str(path))
