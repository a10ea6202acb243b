"""public_addresses.py: what is of the public internet, and every IPv6 form that carries an IPv4 address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from llama_index_multimodal_rerank.images.public_addresses import is_public

PUBLIC_V4 = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "100.63.255.255",
    "128.0.0.1",
    "172.32.0.1",
    "223.255.255.254",
]

NOT_PUBLIC_V4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # a metadata service
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",  # Azure's host
    "169.254.0.1",
    "169.254.169.254",  # metadata services
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",  # a metadata service
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]

PUBLIC_V6 = ["2001:4860:4860::8888", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2c0f:fb50:4003::1"]

NOT_PUBLIC_V6 = [
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",  # a metadata service
    "ff02::1",
    "100::1",
    "2001:db8::1",
    "2001:2::1",
    "2001:20::1",
    "3ffe::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "e000::1",
]


@pytest.mark.parametrize("address", PUBLIC_V4 + PUBLIC_V6)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC_V4 + NOT_PUBLIC_V6)
def test_not_public(address: str) -> None:
    assert not is_public(address)


def joined(prefix: str, v4: str, shift: int = 0) -> str:
    return str(IPv6Address(int(IPv6Address(prefix)) | int(IPv4Address(v4)) << shift))


# Form -> prefix, and by how many bits the IPv4 address stands left of the end.
IN_USE = {
    "IPv4-mapped": ("::ffff:0:0", 0),
    "NAT64": ("64:ff9b::", 0),
    "ISATAP": ("2a00:1450:4001:81b:0:5efe::", 0),
    "ISATAP of a unique address": ("2a00:1450:4001:81b:200:5efe::", 0),
}
OUT_OF_USE = {
    "IPv4-compatible": ("::", 0),
    "IPv4-translated": ("::ffff:0:0:0", 0),
    "local-use NAT64": ("64:ff9b:1::", 0),
    "local-use NAT64 /48": ("64:ff9b:1::", 48),
    "6to4": ("2002::", 80),
    "Teredo server": ("2001::", 64),
    "ISATAP, link-local": ("fe80::5efe:0:0", 0),
}


@pytest.mark.parametrize("form", [*IN_USE, *OUT_OF_USE])
@pytest.mark.parametrize("v4", NOT_PUBLIC_V4)
def test_no_form_carries_an_address_that_is_not_public(form: str, v4: str) -> None:
    address = joined({**IN_USE, **OUT_OF_USE}[form][0], v4, {**IN_USE, **OUT_OF_USE}[form][1])
    assert not is_public(address)
    assert not is_public(ip_address(address).exploded)


@pytest.mark.parametrize("form", IN_USE)
@pytest.mark.parametrize("v4", PUBLIC_V4)
def test_a_public_address_is_reached_through_nat64(form: str, v4: str) -> None:
    # With NAT64 and DNS64, every host of the IPv4 internet has such an address.
    assert is_public(joined(IN_USE[form][0], v4))


@pytest.mark.parametrize("form", OUT_OF_USE)
def test_forms_out_of_use_are_refused_whatever_they_carry(form: str) -> None:
    assert not is_public(joined(OUT_OF_USE[form][0], "8.8.8.8", OUT_OF_USE[form][1]))


def test_a_teredo_client_is_refused() -> None:
    hidden = str(IPv4Address(int(IPv4Address("127.0.0.1")) ^ 0xFFFFFFFF))
    assert not is_public(joined("2001:0:808:808::", hidden))


def test_no_address() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        is_public("localhost")
