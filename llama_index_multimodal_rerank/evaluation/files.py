"""Are the pictures that a benchmark names there?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_SHOWN = 3


def check_present(files: Mapping[str, Path], folder: Path) -> None:
    """Check that every picture is a file, before the first of them is embedded.

    Args:
        files: pictures' files by id.
        folder: where they were looked for, for the error.

    Raises:
        FileNotFoundError: pictures are missing; says how many, and names the first.
    """
    if missing := [path for path in files.values() if not path.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} pictures are missing, the first: "
            f"{', '.join(str(path) for path in missing[:_SHOWN])}. Looked for in {str(folder)!r}; say with "
            "images= where they lie"
        )
