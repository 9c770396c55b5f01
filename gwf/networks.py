"""Read the private networks that requests of automated tasks may reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gwf.errors import Invalid


def checked_networks(values: object) -> tuple[str, ...]:
    """Return networks as text, such as ``127.0.0.0/8``.

    Raises
    ------
    Invalid
        Not a list, or something that is no network.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise Invalid("networks", values, expected="a list such as ['127.0.0.0/8']")
    found = []
    for value in values:
        try:
            found.append(str(ipaddress.ip_network(_text(value))))
        except ValueError:
            raise Invalid("network", value, expected="an address or network, 127.0.0.0/8") from None
    return tuple(found)


def _text(value: object) -> str:
    """Return a network as text; numbers and bytes are addresses to ``ipaddress``, not to people."""
    if isinstance(value, str | IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        return str(value)
    raise ValueError("not text")
