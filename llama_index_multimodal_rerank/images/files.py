"""Reading a picture file: opened once, looked at through its descriptor, confined to a folder.

A path is text that others may have written, and the folder below it a place where others may write. Whatever
is decided by path and then opened by path can be another file by then. So a file is opened once and
everything is asked of the descriptor; and where files are confined to a folder, its real path is resolved
first and then opened name by name, none of which may be a link any more.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ImageLoadError, ImageNotFoundError

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# A pipe is opened without waiting for its other end, and a terminal without becoming this process's own.
_READ_FILE = _READ | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# O_PATH opens folders that may be searched but not listed.
_OPEN_FOLDER = getattr(os, "O_PATH", _READ) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_HAS_OPENAT = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd and bool(_NO_LINK)


def read_file(
    path: Path, max_bytes: int, *, name: str, data_root: str | os.PathLike[str] | None = None
) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: the file.
        max_bytes: largest size accepted.
        name: stands for the file in errors.
        data_root: the only folder that files are read from. ``..`` and symbolic links are resolved, then
            the real path is opened without following a link below the folder: a link put in
            place in between is refused. (Windows has no such call: there the real path is opened
            by its name.) Above the folder links are followed, at the time of the call.

    Raises:
        ImageNotFoundError: no such file.
        ImageLoadError: not a regular file, too large, not readable, or outside of ``data_root``; of a
            file outside nothing is looked at, so the error does not tell whether it exists.
    """
    with _opened(path, name, data_root) as descriptor:
        return _read_descriptor(descriptor, max_bytes, name)


def read_start(
    path: Path, length: int, *, name: str, data_root: str | os.PathLike[str] | None = None
) -> bytes:
    """Return a file's first bytes, at most ``length``; everything else as :func:`read_file`."""
    with _opened(path, name, data_root) as descriptor:
        _check_regular(os.fstat(descriptor), name)
        return os.read(descriptor, length)


def check_is_there(path: Path, *, name: str, data_root: str | os.PathLike[str] | None = None) -> None:
    """Make sure that there is a regular file that this process may read, without opening it where possible.

    Raises:
        ImageNotFoundError: no such file.
        ImageLoadError: as :func:`read_file`, but for what only reading tells.
    """
    if data_root is None:
        with _load_errors(name):
            _check_regular(os.stat(path), name)  # noqa: PTH116
            if os.access(path, os.R_OK):
                return
    # Below a folder it is looked for as it is read, name by name; where it may not be read, this says why.
    read_start(path, 1, name=name, data_root=data_root)


@contextmanager
def _opened(path: Path, name: str, data_root: str | os.PathLike[str] | None) -> Iterator[int]:
    """Yield the file's descriptor; errors, those of reading it, too, become ImageLoadError."""
    with _load_errors(name):
        if data_root is None:
            descriptor = _open_file(str(path), name)
        else:
            descriptor = _open_below(*_split_at_root(path, data_root, name), name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ImageLoadError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageNotFoundError(name, "no such file") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            reason = "it is a link that leads to itself, or became a link while it was opened"
        else:
            reason = error.strerror or str(error)
        raise ImageLoadError(name, reason) from error
    except ValueError as error:  # an embedded NUL
        raise ImageLoadError(name, str(error)) from error


def _split_at_root(path: Path, data_root: str | os.PathLike[str], name: str) -> tuple[str, tuple[str, ...]]:
    """Return the real path of the folder, and the names that lead from it to the file."""
    # Not Path.resolve and Path.expanduser, which raise for loops and unknown users.
    root = Path(os.path.realpath(os.path.expanduser(data_root)))  # noqa: PTH111
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(root):
        raise ImageLoadError(
            name,
            f"it is outside of data_root={str(data_root)!r}, the only folder that pictures are read from",
        )
    return str(root), real.relative_to(root).parts


def _open_below(root: str, names: tuple[str, ...], name: str) -> int:
    if not _HAS_OPENAT:
        return _open_file(os.path.join(root, *names), name)  # noqa: PTH118
    folder = os.open(root, _OPEN_FOLDER)
    try:
        for part in names[:-1]:
            below = os.open(part, _OPEN_FOLDER | _NO_LINK, dir_fd=folder)
            os.close(folder)
            folder = below
        return _open_file(names[-1] if names else ".", name, folder)
    finally:
        os.close(folder)


def _open_file(path: str, name: str, folder: int | None = None) -> int:
    """Open for reading; with a folder's descriptor, one name in it, which must not be a link."""
    # Looked at before it is opened, because to open a device can be to start it. What it is in the end is
    # asked of the descriptor.
    if folder is None:
        _check_regular(os.stat(path), name)  # noqa: PTH116
        return os.open(path, _READ_FILE)
    _check_regular(os.stat(path, dir_fd=folder, follow_symlinks=False), name)
    return os.open(path, _READ_FILE | _NO_LINK, dir_fd=folder)


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageLoadError(name, "it is not a regular file")


def _read_descriptor(descriptor: int, max_bytes: int, name: str) -> bytes:
    status = os.fstat(descriptor)
    _check_regular(status, name)
    if status.st_size > max_bytes:
        raise ImageLoadError(name, f"it has {status.st_size} bytes, more than the limit of {max_bytes}")
    # One call for nearly every file; those that grow, or do not know their size, are read on to the limit.
    data = os.read(descriptor, status.st_size + 1)
    while len(data) <= max_bytes:
        more = os.read(descriptor, min(max_bytes + 1 - len(data), 1 << 20))
        if not more:
            return data
        data += more
    raise ImageLoadError(name, f"it has more bytes than the limit of {max_bytes}")
