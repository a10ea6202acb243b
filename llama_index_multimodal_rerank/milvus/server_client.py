"""ServerMilvusClient: a MilvusClient that sits out a short absence of its server."""

from __future__ import annotations

import functools
import time
from typing import Any

from pymilvus.client.types import Status
from pymilvus.exceptions import MilvusException

from .clients import MilvusUnavailableError, NodeMilvusClient

RETRY_TIMEOUT_SECONDS = 30.0
"""How long a request is repeated while a server does not answer."""


def _is_gone(error: MilvusException) -> bool:
    code = error.code() if callable(error.code) else error.code  # pymilvus 2.6.7 forgets to call it
    return code == Status.CONNECT_FAILED or getattr(code, "name", None) == "UNAVAILABLE"  # gRPC's


def _with_retries(name: str) -> Any:
    """Make the method of a client that gives up on a server after a while, in words."""
    original = getattr(NodeMilvusClient, name)

    @functools.wraps(original)
    def method(self: ServerMilvusClient, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("retry_times", 1)  # of pymilvus itself
        deadline, pause = time.monotonic() + RETRY_TIMEOUT_SECONDS, 0.1
        while True:
            try:
                return original(self, *args, **kwargs)
            except MilvusException as error:
                if not _is_gone(error):
                    raise
                if time.monotonic() + pause > deadline:
                    raise MilvusUnavailableError(
                        error.code,
                        f"Milvus at {self._place!r} stopped answering in {name}, for "
                        f"{RETRY_TIMEOUT_SECONDS:.0f} seconds. Rows of earlier requests are kept. When it is "
                        "back, do the same again: rows added again under their ids replace the old ones. "
                        f"({error.message})",
                    ) from error
            time.sleep(pause)
            pause = min(2 * pause, 3.0)

    return method


class ServerMilvusClient(NodeMilvusClient):
    """A ``MilvusClient`` that sits out a short absence of its server, and says so when it is a long one.

    pymilvus tries 75 times, which is close to four minutes of silence, or (since about 2.6.10)
    gives up after one attempt to connect again, which a server that restarts does not survive.
    """

    def __init__(self, uri: str, **kwargs: Any) -> None:
        super().__init__(uri, **kwargs)
        self._place = uri

    insert = _with_retries("insert")
    upsert = _with_retries("upsert")
    delete = _with_retries("delete")
    search = _with_retries("search")
    hybrid_search = _with_retries("hybrid_search")
    query = _with_retries("query")
    get = _with_retries("get")
    flush = _with_retries("flush")
