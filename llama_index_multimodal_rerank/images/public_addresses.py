"""Which addresses are of the public internet: a list of what is, not of what is not.

From IANA's registries of special-purpose addresses and RFC 4291, 5214, 6052. Python's own
``is_global`` knows other blocks in every release, and calls ``64:ff9b::127.0.0.1``, deprecated
IPv4-in-IPv6 forms and multicast global; here it may only say no.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_PUBLIC_V4 = (IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/2"), IPv4Network("192.0.0.0/3"))
"""All below 224.0.0.0, where multicast and reserved addresses begin."""

_NOT_PUBLIC_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, to every virtual machine on it; routed nowhere else
        "169.254.0.0/16",  # link-local; metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; a metadata service at .192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
    )
)

_PUBLIC_V6 = (IPv6Network("2000::/3"),)
"""Global unicast. Outside are loopback, IPv4-compatible, -mapped and -translated, NAT64, unique local, …"""

_NOT_PUBLIC_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments; Teredo, which carries IPv4 addresses
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries IPv4 addresses; deprecated
        "3ffe::/16",  # 6bone, returned
        "3fff::/20",  # documentation
    )
)

_V4_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = 0x5EFE
"""The upper half of an interface identifier that ends in an IPv4 address; bits 0x03000000 are flags."""


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet.

    IPv6 forms that carry an IPv4 address are decided by that address where they are in use
    (IPv4-mapped, the well-known prefix of NAT64, ISATAP), and are not public otherwise (6to4,
    Teredo, local-use NAT64, IPv4-compatible, IPv4-translated).

    Args:
        address: an IPv4 or IPv6 address, as ``getaddrinfo`` writes it.

    Raises:
        ValueError: it is no address.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return _is_public_v4(ip)
    if ip in _V4_MAPPED or ip in _NAT64:
        return _is_public_v4(_lowest_32_bits(ip))
    if (int(ip) >> 32) & 0xFCFF_FFFF == _ISATAP and not _is_public_v4(_lowest_32_bits(ip)):
        return False
    return (
        any(ip in block for block in _PUBLIC_V6)
        and not any(ip in block for block in _NOT_PUBLIC_V6)
        and ip.is_global
    )


def _is_public_v4(ip: IPv4Address) -> bool:
    return (
        any(ip in block for block in _PUBLIC_V4)
        and not any(ip in block for block in _NOT_PUBLIC_V4)
        and ip.is_global
    )


def _lowest_32_bits(ip: IPv6Address) -> IPv4Address:
    return IPv4Address(int(ip) & 0xFFFF_FFFF)
