"""download_images: pictures from hosts that the user names, into a folder, going on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..images.access import MAX_IMAGE_BYTES, ImageAccess
from ..images.errors import ImageLoadError, UrlError
from ..images.partial_body import PartialBody
from ..images.urls import fetch_url

logger = logging.getLogger(__name__)

JOURNAL = "downloads.jsonl"
"""File in the folder that says which URL became which file, a line for each."""

_PARTIAL = ".partial"
_BEGUN = ".begun"


class SkippedUrl(NamedTuple):
    """A URL whose picture is not in the folder, and why."""

    url: str
    reason: str


class DownloadedImages(dict[str, Path]):
    """The files by URL.

    Attributes:
        skipped: the URLs that gave no picture; the next call asks for them again.
        fetched: how many were fetched in this call; the others were there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped: list[SkippedUrl] = []
        self.fetched = 0


def download_images(
    urls: Iterable[str],
    folder: str | os.PathLike[str],
    *,
    allow_urls: Sequence[str],
    connections: int = 8,
    max_bytes: int = MAX_IMAGE_BYTES,
    show_progress: bool = False,
) -> DownloadedImages:
    """Fetch pictures into a folder, each once.

    A picture is decoded to its end before it gets its name, which is the SHA-256 of its bytes: so a file
    with such a name is whole, and the same picture behind two URLs is one file. A call that was killed goes
    on where it was: pictures that are there are not fetched again, and of one that was being received the
    rest is asked for, if the server tells versions of it apart (a strong ``ETag``, or a ``Last-Modified`` of
    more than a minute before); else it is fetched from its beginning, as it is if it changed since.

    Use a folder from one process at a time.

    Args:
        urls: http(s) addresses; each counts once.
        folder: made if it is missing.
        allow_urls: the hosts to fetch from; see :data:`~..images.url_hosts.AllowUrls`. Others are skipped
            without being contacted, redirects to others too.
        connections: how many are open at a time, at least 1.
        max_bytes: largest picture accepted.
        show_progress: show a progress bar.

    Returns:
        The files by URL, in the order of ``urls``; ``.skipped`` has the URLs that gave no picture.

    Raises:
        ValueError: ``allow_urls`` is no list of hosts, or ``connections`` is less than 1.
        OSError: the folder cannot be written.
    """
    from tqdm.auto import tqdm

    if isinstance(allow_urls, bool):
        raise ValueError(f"allow_urls must list the hosts to fetch from, got {allow_urls}")
    if connections < 1:
        raise ValueError(f"connections must be at least 1, got {connections}")
    access = ImageAccess(allow_urls=allow_urls, max_bytes=max_bytes)
    store = _Folder(Path(folder))
    wanted = list(dict.fromkeys(urls))
    outcomes: dict[str, Path | str] = {url: path for url in wanted if (path := store.find(url))}
    missing = [url for url in wanted if url not in outcomes]

    def fetch(url: str) -> Path | str:
        try:
            if not url.lower().startswith(("http://", "https://")):
                return "it is no http(s) address"
            partial = store.begun(url)
            try:
                data, info, digest = access.check(_fetch(url, access, partial))
            except ImageLoadError:
                partial.discard()  # the whole is there, and is no picture
                if not partial.resumed:
                    raise
                data, info, digest = access.check(_fetch(url, access, partial))
        except ImageLoadError as error:
            return error.reason
        except UrlError as error:
            return str(error)
        path = store.keep(url, data, digest.removeprefix("sha256:"), info.mimetype)
        partial.discard()
        return path

    result = DownloadedImages()
    with ThreadPoolExecutor(connections, thread_name_prefix="download-images") as pool:
        try:
            done = tqdm(
                pool.map(fetch, missing),
                total=len(missing),
                desc="Downloading images",
                disable=not show_progress,
            )
            outcomes.update(zip(missing, done, strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            store.close()
    for url in wanted:
        outcome = outcomes[url]
        if isinstance(outcome, Path):
            result[url] = outcome
        else:
            logger.warning("Skipped %r: %s", url, outcome)
            result.skipped.append(SkippedUrl(url, outcome))
    result.fetched = sum(url in result for url in missing)
    return result


def _fetch(url: str, access: ImageAccess, partial: PartialBody) -> bytes:
    return fetch_url(url.strip(), allow_urls=access.allow_urls, max_bytes=access.max_bytes, partial=partial)


class _Folder:
    """Files named by digest, and the journal of what became which."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._lock = threading.Lock()
        partial = self._root / _PARTIAL
        partial.mkdir(parents=True, exist_ok=True)
        for left in partial.iterdir():  # by a process that was killed
            if left.suffix != _BEGUN:
                left.unlink()
        path = self._root / JOURNAL
        text = path.read_bytes() if path.exists() else b""
        self._files: dict[str, tuple[str, int]] = {}
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # the last line of a process that was killed
                entry = json.loads(line)
                self._files[str(entry["url"])] = str(entry["file"]), int(entry["bytes"])
        self._journal = path.open("ab")
        if text and not text.endswith(b"\n"):
            self._journal.write(b"\n")

    def find(self, url: str) -> Path | None:
        """Return the file of a URL, if it is there in its full size."""
        if url not in self._files:
            return None
        name, size = self._files[url]
        path = self._root / Path(name).parent.name / Path(name).name  # never out of the folder
        try:
            return path if path.stat().st_size == size else None
        except OSError:
            return None

    def begun(self, url: str) -> PartialBody:
        """Return what arrived of a URL's picture before, and keeps what arrives now."""
        name = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
        return PartialBody(self._root / _PARTIAL / f"{name}{_BEGUN}")

    def keep(self, url: str, data: bytes, digest: str, mimetype: str) -> Path:
        """Write a picture, then its line in the journal."""
        ending = mimetype.partition("/")[2].partition("+")[0]
        path = self._root / digest[:2] / f"{digest}.{'jpg' if ending == 'jpeg' else ending}"
        path.parent.mkdir(exist_ok=True)
        partial = self._root / _PARTIAL / f"{digest}-{threading.get_ident()}"
        partial.write_bytes(data)
        partial.replace(path)
        entry = {"url": url, "file": f"{digest[:2]}/{path.name}", "bytes": len(data)}
        with self._lock:
            self._journal.write(json.dumps(entry).encode() + b"\n")
            self._journal.flush()
        return path

    def close(self) -> None:
        self._journal.close()
