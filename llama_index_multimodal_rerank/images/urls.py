"""Fetch a picture from an http(s) address without becoming somebody's way into the network.

A URL in a document is text that others wrote. Fetched without care, it makes this machine ask
addresses that only this machine can reach: its own services, the neighbours', a cloud's metadata
service (server-side request forgery).
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

AllowUrls = bool | Sequence[str]
"""False: fetch nothing. True: any public address. Host names or addresses: these only, also private ones."""

CONNECT_TIMEOUT_SECONDS = 10.0
TOTAL_TIMEOUT_SECONDS = 60.0
MAX_REDIRECTS = 5


class UrlError(ValueError):
    """A URL that is not fetched, or could not be; the message says why."""


def fetch_url(url: str, *, allow_urls: AllowUrls, max_bytes: int) -> bytes:
    """Return the body of an http(s) address.

    Every hop of a redirect is checked like the first: scheme, host, and the addresses that its
    name resolves to, all of which must be public. The connection goes to the very address that
    was checked, so a name cannot resolve to another one in between.

    Args:
        url: the address.
        allow_urls: see :data:`AllowUrls`.
        max_bytes: largest body accepted.

    Raises:
        UrlError: not allowed, not found, too large, too slow, or too many redirects.
    """
    import httpx

    deadline = time.monotonic() + TOTAL_TIMEOUT_SECONDS
    try:
        target = httpx.URL(url)
        with httpx.Client(timeout=CONNECT_TIMEOUT_SECONDS, trust_env=False) as client:
            for _ in range(MAX_REDIRECTS + 1):
                address = _checked_address(target, allow_urls)
                with client.stream(
                    "GET",
                    target.copy_with(host=address),
                    headers={"Host": target.netloc.decode("ascii")},
                    extensions={"sni_hostname": target.host},
                ) as response:
                    if response.has_redirect_location:
                        target = target.join(response.headers["location"])
                        continue
                    response.raise_for_status()
                    return _read(response, max_bytes, deadline)
    except httpx.HTTPStatusError as error:
        raise UrlError(f"the server answered {error.response.status_code}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        if isinstance(error, UrlError):
            raise
        raise UrlError(f"it could not be fetched ({error})") from error
    raise UrlError(f"it redirects more than {MAX_REDIRECTS} times")


def _read(response: httpx.Response, max_bytes: int, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise UrlError(f"the server sends more than the limit of {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise UrlError(f"the server takes longer than {TOTAL_TIMEOUT_SECONDS:.0f} seconds")
    return bytes(body)


def _checked_address(url: httpx.URL, allow_urls: AllowUrls) -> str:
    """Return the address to connect to."""
    if url.scheme not in ("http", "https") or not url.host:
        raise UrlError(f"{str(url)[:100]!r} is no http(s) address")
    if allow_urls is False:
        raise UrlError(
            "URLs are not fetched unless allow_urls=True, or a list of hosts, is set; "
            "or download the file first"
        )
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UrlError(f"the host {url.host!r} is not known ({error})") from error
    addresses = [str(entry[4][0]) for entry in found]
    if allow_urls is not True:
        if url.host not in allow_urls:
            raise UrlError(f"the host {url.host!r} is none of those allowed by allow_urls={list(allow_urls)}")
        return addresses[0]
    for address in addresses:
        if not _is_public(address):
            raise UrlError(
                f"the host {url.host!r} leads to {address}, which is not a public address; "
                f"allow_urls=[{url.host!r}] allows it by name"
            )
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast
