"""Read the private networks that requests of automated tasks may reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from gwf.errors import Invalid


def checked_networks(values: object) -> tuple[str, ...]:
    """Return networks as text, such as ``127.0.0.0/8``.

    Raises
    ------
    Invalid
        Not a list, or something that is no network.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise Invalid("networks", values, expected="a list such as ['127.0.0.0/8']")
    found = []
    for value in values:
        try:
            found.append(str(ipaddress.ip_network(value)))
        except ValueError:
            raise Invalid("network", value, expected="an address or network, 127.0.0.0/8") from None
    return tuple(found)
