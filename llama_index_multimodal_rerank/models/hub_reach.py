"""Whether the model hub can be reached, found out by one connection before its client tries for long."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 5.0


def why_unreachable() -> str | None:
    """Return why no connection can be made to the hub; None where one can, or nothing is known of it.

    Without a network, huggingface_hub (2.4) asks six times for each file that is not in the cache, and waits
    23 seconds between its tries; transformers asks for several such files. A connection that is refused, or a
    name that nobody knows, is known at once. Where a proxy makes the connections, and where the client is
    offline by its settings, nothing is tried.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    address = urlsplit(constants.ENDPOINT)
    host = address.hostname
    if host is None or _has_proxy(address.scheme, host):
        return None
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return f"{constants.ENDPOINT} cannot be reached: {error}"
    return None


def _has_proxy(scheme: str, host: str) -> bool:
    proxies = getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)
