"""From a URI to a client of Milvus Lite, of a server or of Zilliz Cloud."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .lite_recovery import check_is_database
from .options import connection_options

if TYPE_CHECKING:
    from pymilvus import MilvusClient

LITE_CONNECTION = {
    "grpc.keepalive_time_ms": 2**31 - 1,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.use_local_subchannel_pool": 1,
}
"""Options of gRPC with which Milvus Lite is not pinged, and nothing is known of a port's past.

pymilvus (2.6.17) pings every ten seconds, and gRPC's default server, which Lite is, takes that for an attack:
after a minute or two with few requests it closes the connection, and gRPC prints "ENHANCE_YOUR_CALM",
"too_many_pings". There is nothing to keep alive: the server is in the same process.

Every database has a port of its own, which the system may give again to another one after it was closed. gRPC
keeps for all channels of a process how often a port has refused, and does not try it again for up to two
minutes: the new database could not be opened.
"""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|unix:")
_SERVER_SCHEMES = ("http://", "https://", "tcp://", "unix:")


def resolve_uri(uri: str | Path) -> tuple[str, bool]:
    """Return the URI for pymilvus, and whether it is a Milvus Lite file."""
    text = str(uri)
    scheme = _SCHEME.match(text)
    # pymilvus takes every address that ends in ".db" for a file.
    if scheme and scheme[0].lower() in _SERVER_SCHEMES and not text.endswith(".db"):
        return text, False
    if scheme or not text.endswith(".db"):
        raise ValueError(
            f"uri must be a file name ending in '.db' (Milvus Lite) or start with http:// or https:// "
            f"(Milvus server, Zilliz Cloud), got {text!r}"
        )
    path = Path(text).expanduser().absolute()
    check_is_database(path)
    return str(path), True


def lite_options(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a client with :data:`LITE_CONNECTION` added; the caller's own stay."""
    return {**kwargs, "grpc_options": {**LITE_CONNECTION, **(kwargs.get("grpc_options") or {})}}


def connect(uri: str, local: bool, options: Mapping[str, Any]) -> MilvusClient:
    """Return a client for a file or a server, or raise what says why there is none.

    Args:
        uri: from :func:`resolve_uri`.
        local: from :func:`resolve_uri`.
        options: of the client; those of a store among them are passed over.

    Raises:
        MilvusDiskError: Milvus Lite cannot write its file; an OSError.
        ConnectionError: Milvus does not answer, or another process has the file open.
    """
    from pymilvus.exceptions import MilvusException

    from .clients import MilvusDiskError
    from .lite_client import LiteMilvusClient
    from .server_client import ServerMilvusClient

    try:
        return (LiteMilvusClient if local else ServerMilvusClient)(uri=uri, **connection_options(options))
    except MilvusDiskError:
        raise
    except MilvusException as error:
        hint = "" if local else " Is the address right, the server running, and the token valid?"
        raise ConnectionError(f"cannot open Milvus at {uri!r}: {error.message}.{hint}") from error
