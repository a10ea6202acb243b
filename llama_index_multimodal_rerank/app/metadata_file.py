"""A table of what is known of the pictures of a folder, for filters and captions: CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

FILE_KEY = "file"
"""Column, or key, that names the picture: its path from the folder on."""

_HELP = f"each line needs {FILE_KEY!r}, a picture's path from the folder on, and what is known of it"


class MetadataFileError(ValueError):
    """A table that cannot be used; the message names file, line and reason."""


@dataclass(frozen=True)
class MetadataFile:
    """Metadata of the pictures of a folder.

    Attributes:
        path: the table.
        rows: metadata by the picture's path from the folder on, with ``/`` between folders.
    """

    path: Path
    rows: dict[str, dict[str, Any]]

    def of(self, picture: Path, folder: Path) -> dict[str, Any]:
        """Return what the table says of a picture; nothing if it does not name it.

        Args:
            picture: its path, below the folder's.
            folder: the folder.
        """
        return self.rows.get(picture.relative_to(folder).as_posix(), {})


def read_metadata_file(path: str | os.PathLike[str]) -> MetadataFile:
    """Read a table: ``.csv`` with a line of names first, or ``.jsonl`` with an object in each line.

    Cells of a CSV file that read as JSON numbers are numbers, empty ones are left out, all else is text.

    Args:
        path: the file, in UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        MetadataFileError: it is no such table.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {str(path)!r}")
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise MetadataFileError(f"{path} must end in .csv or .jsonl; {_HELP}")
    rows: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig")
        for number, row in _csv_rows(lines) if path.suffix.lower() == ".csv" else _json_rows(lines):
            name = row.pop(FILE_KEY, None)
            if not isinstance(name, str) or not name:
                known = ", ".join(row) or "none"
                raise _LineError(number, f"{_HELP}; there is no {FILE_KEY!r}, there are: {known}")
            if os.path.isabs(name) or ".." in PurePosixPath(name).parts:  # noqa: PTH117 (a name, not a file)
                raise _LineError(number, f"{name!r} is no path from the folder on, such as 'shoes/red.jpg'")
            name = str(PurePosixPath(name))
            if name in rows:
                raise _LineError(number, f"{name!r} is there already")
            rows[name] = row
    except _LineError as error:
        raise MetadataFileError(f"{path}, line {error.number}: {error.reason}") from error
    except UnicodeDecodeError as error:
        raise MetadataFileError(f"{path} is not in UTF-8: {error}. Save it in UTF-8") from error
    if not rows:
        raise MetadataFileError(f"{path} has no line with a picture; {_HELP}")
    return MetadataFile(path, rows)


class _LineError(Exception):
    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number, self.reason = number, reason


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # Not splitlines(), which ends lines at characters that stand within cells, such as U+2028.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if None in row:
                raise _LineError(reader.line_num, "there are more cells than names in the first line")
            yield (
                reader.line_num,
                {
                    key: value if key == FILE_KEY else _cell(value)
                    for key, value in row.items()
                    if value not in (None, "")
                },
            )
    except csv.Error as error:
        raise _LineError(reader.line_num, str(error)) from error


def _cell(text: str) -> str | int | float:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else text


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _LineError(number, f"no JSON: {error}") from error
        if not isinstance(row, dict):
            raise _LineError(number, "a JSON object is expected")
        yield number, row
