"""The files of a folder that are not hidden; what cannot be listed is named, not passed over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

from ..images.errors import ImageLoadError

LINKED_FOLDER = "a link to a folder, which is not followed"
"""Reason of links to folders."""


class FoundFile(NamedTuple):
    """A file, or what stands in a folder in the place of files.

    Attributes:
        path: where it is.
        given: the user named this very file.
        problem: why there is nothing to read: an error, or a reason that is none.
    """

    path: Path
    given: bool = False
    problem: ImageLoadError | str | None = None


def parse_glob(glob: str, *, recursive: bool) -> tuple[str, ...]:
    """Return the parts of a glob; ``"**"`` stands for any number of folders.

    Args:
        glob: relative to the folder, or to each of its subfolders.
        recursive: the latter.

    Raises:
        ValueError: it is empty, absolute, or leads out of the folder.
    """
    pattern = PurePath(glob)
    if not pattern.parts or pattern.is_absolute() or pattern.drive or ".." in pattern.parts:
        raise ValueError(
            f"glob must be a pattern below the folder, such as '*.jpg' or '2024/*', got {glob!r}"
        )
    return ("**", *pattern.parts) if recursive else pattern.parts


def list_folder(root: Path, pattern: Sequence[str]) -> list[FoundFile]:
    """Return what matches in a folder, in sorted order.

    Args:
        root: the folder.
        pattern: from :func:`parse_glob`. Names that begin with a dot are matched only by parts that do.

    Returns:
        Files, links that lead nowhere, pipes and so on; in the place of files, subfolders that cannot be
        listed (an error) and links to folders (no error).
    """
    found: list[FoundFile] = []
    pending: list[tuple[str, ...]] = [()]
    while pending:
        folder = pending.pop()
        path = Path(root, *folder)
        try:
            with os.scandir(path) as scan:
                entries = list(scan)
        except OSError as error:
            reason = f"the folder cannot be listed ({error.strerror or error})"
            found.append(FoundFile(path, problem=ImageLoadError(repr(str(path)), reason)))
            continue
        for entry in entries:
            names = (*folder, entry.name)
            if not _is_folder(entry):
                if _matches(names, pattern):
                    found.append(FoundFile(path / entry.name))
            elif _may_match_below(names, pattern):
                if entry.is_symlink():
                    found.append(FoundFile(path / entry.name, problem=LINKED_FOLDER))
                else:
                    pending.append(names)
    return sorted(found, key=lambda file: file.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where nobody may look: reading it will tell
        return False


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return _matches(names, pattern[1:]) or (_matches_part(names, "*") and _matches(names[1:], pattern))
    return _matches_part(names, pattern[0]) and _matches(names[1:], pattern[1:])


def _may_match_below(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether a file below a folder can match."""
    if not folder:
        return bool(pattern)
    if not pattern:
        return False
    if pattern[0] == "**" and (
        (_matches_part(folder, "*") and _may_match_below(folder[1:], pattern))
        or _may_match_below(folder, pattern[1:])
    ):
        return True
    return (
        pattern[0] != "**" and _matches_part(folder, pattern[0]) and _may_match_below(folder[1:], pattern[1:])
    )


def _matches_part(names: Sequence[str], part: str) -> bool:
    if not names or (names[0].startswith(".") and not part.startswith(".")):
        return False
    return fnmatchcase(os.path.normcase(names[0]), os.path.normcase(part))
