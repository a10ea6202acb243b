"""allow_urls: which hosts a caller allows pictures to be fetched from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from ipaddress import ip_address

AllowUrls = bool | Sequence[str] | AbstractSet[str]
"""False: fetch nothing. True: any public address. Hosts: these only, also private ones.

A host is a name or an address, as a rule without a port (``"images.example.org"``, ``"10.0.0.7"``,
``"::1"``); with one (``"localhost:8000"``, ``"[::1]:8000"``), only this port is allowed. Upper and
lower case, a dot at the end and the two spellings of international names make no difference.
Subdomains are hosts of their own.
"""

_NAME_OR_ADDRESS = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+")


def check_allow_urls(allow_urls: object) -> bool | list[str]:
    """Return a valid value of ``allow_urls``: a bool, or a list of hosts.

    Raises:
        ValueError: it is a string, or something else, or an entry is no host.
    """
    if isinstance(allow_urls, bool):
        return allow_urls
    if isinstance(allow_urls, str):
        # Without this, every part of the string would be an allowed host.
        raise ValueError(
            f"allow_urls must be True, False or a list of hosts, got the string {allow_urls!r}; "
            f"for this one host write allow_urls=[{allow_urls!r}]"
        )
    if not isinstance(allow_urls, (Sequence, AbstractSet)) or isinstance(allow_urls, (bytes, bytearray)):
        raise ValueError(f"allow_urls must be True, False or a list of hosts, got {allow_urls!r}")
    entries: list[str] = []
    for entry in allow_urls:
        if not isinstance(entry, str):
            raise ValueError(f"allow_urls must list hosts as strings, got {entry!r}")
        _host_and_port(entry)
        entries.append(entry)
    return entries


def is_listed(host: str, port: int, hosts: Sequence[str]) -> bool:
    """Tell whether a host of a URL, in ASCII and without brackets, is on a checked list."""
    name = _canonical(host)
    return any(name == listed and only in (None, port) for listed, only in map(_host_and_port, hosts))


def _host_and_port(entry: str) -> tuple[str, int | None]:
    import httpx

    try:
        ip_address(entry)
    except ValueError:
        netloc = entry
    else:
        netloc = f"[{entry}]" if ":" in entry else entry
    try:
        # No scheme that is known, so that no port is the usual one and left out.
        url = httpx.URL(f"host://{netloc}")
    except (httpx.InvalidURL, ValueError) as error:
        raise _no_host(entry, f" ({error})") from error
    host, port = _canonical(url.raw_host.decode("ascii")), url.port
    if (
        not _NAME_OR_ADDRESS.fullmatch(host)
        or url.userinfo
        or url.raw_path not in (b"", b"/")
        or "#" in entry
        or netloc.endswith("/")
        or not (port is None or 0 < port < 65536)
    ):
        raise _no_host(entry)
    return host, port


def _no_host(entry: str, reason: str = "") -> ValueError:
    return ValueError(
        "allow_urls lists hosts, for instance 'images.example.org', 'localhost:8000' or '[::1]:8000', "
        f"without a scheme, a path or wildcards; got {entry!r}{reason}"
    )


def _canonical(host: str) -> str:
    host = host.lower().removesuffix(".")
    try:
        return ip_address(host).compressed
    except ValueError:
        return host
