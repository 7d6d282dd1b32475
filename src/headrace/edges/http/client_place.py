"""Where a client comes from, as far as it can be told from others."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv6Address

NETWORK_BITS = 64
"""Of an IPv6 address: one host has all that follow, and takes as many as it likes of them."""

_OTHER_BITS = 128 - NETWORK_BITS


def client_place(address: str) -> str:
    """What of a client's address counts: an IPv4 address, also where it is mapped into IPv6, or the
    network of an IPv6 one.
    """
    if ":" not in address:
        return address
    try:
        host = IPv6Address(address)
    except AddressValueError:
        return address
    if host.ipv4_mapped is not None:
        return str(host.ipv4_mapped)
    zone = "" if host.scope_id is None else f"%{host.scope_id}"
    network = IPv6Address(int(host) >> _OTHER_BITS << _OTHER_BITS)
    return f"{network}{zone}/{NETWORK_BITS}"
