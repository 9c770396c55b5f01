"""Read private networks: what is one, and what is refused rather than guessed at."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gwf
from gwf.networks import checked_networks


@pytest.mark.parametrize(
    ("given_", "found"),
    [
        ("127.0.0.0/8", "127.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "::1/128"),
        ("FD00:0:0::/8", "fd00::/8"),
        (ipaddress.ip_network("192.168.0.0/16"), "192.168.0.0/16"),
        (ipaddress.ip_address("192.168.0.1"), "192.168.0.1/32"),
    ],
)
def test_read_a_network(given_: Any, found: str) -> None:
    """An address is a network of its own; each is written in one way."""
    assert checked_networks([given_]) == (found,)


def test_read_keeps_the_order() -> None:
    """A list and a tuple will do; none is none."""
    assert checked_networks(("::1", "10.0.0.0/8")) == ("::1/128", "10.0.0.0/8")
    assert checked_networks([]) == checked_networks(()) == ()


@pytest.mark.parametrize(
    "value",
    [None, "127.0.0.0/8", 7, True, {"127.0.0.0/8": 1}, {"127.0.0.0/8"}, iter(["127.0.0.0/8"])],
)
def test_refuse_what_is_no_list(value: object) -> None:
    """One text is no list: its characters would be read as networks."""
    with pytest.raises(gwf.Invalid, match=r"^networks .* a list such as") as caught:
        checked_networks(value)
    assert caught.value.value is value


@pytest.mark.parametrize("value", [b"\x7f\x00\x00\x01", bytearray(b"\x7f"), range(2)])
def test_refuse_numbers_in_the_guise_of_a_list(value: object) -> None:
    """Bytes and ranges are sequences of numbers, and no list of networks."""
    with pytest.raises(gwf.Invalid):
        checked_networks(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "localhost",
        "example.org/8",
        "127.1",
        "010.0.0.0/8",
        "127.0.0.0/33",
        "127.0.0.0/-1",
        "::/129",
        "127.0.0.1/8",
        " 127.0.0.0/8",
        "127.0.0.0/8\n",
        "127.0.0.0/8/8",
        "127.0.0.0,10.0.0.0",
        "１２７.0.0.0/8",
        "\ud800",
        1.5,
        None,
        [],
        {},
    ],
)
def test_refuse_what_is_no_network(value: object) -> None:
    """So are an address with bits beside its network, and space around it."""
    with pytest.raises(gwf.Invalid, match=r"^network .* an address or network") as caught:
        checked_networks(["10.0.0.0/8", value])
    assert caught.value.value == value


@pytest.mark.parametrize("value", [0, 1, True, -1, 2**32, b"\x7f\x00\x00\x01"])
def test_refuse_numbers_and_bytes(value: object) -> None:
    """``ipaddress`` reads True as 0.0.0.1; nobody means that."""
    with pytest.raises(gwf.Invalid):
        checked_networks([value])


@pytest.mark.parametrize("value", [(), ("10.0.0.0", None), ("10.0.0.0", 8, 8), ("10.0.0.0", "x")])
def test_refuse_tuples(value: object) -> None:
    """A list within the list ends as ``Invalid`` too, whatever ``ipaddress`` raises on it."""
    with pytest.raises(gwf.Invalid):
        checked_networks([value])


@given(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    st.integers(min_value=0, max_value=128),
)
def test_read_again_changes_nothing(address: Any, length: int) -> None:
    """What is returned is read as itself, and contains the address it was made of."""
    prefix = min(length, address.max_prefixlen)
    network = ipaddress.ip_network((address, prefix), strict=False)
    (found,) = checked_networks([str(network)])
    assert checked_networks([found]) == (found,)
    assert address in ipaddress.ip_network(found)


@given(st.lists(st.one_of(st.text(), st.integers(), st.none(), st.binary(), st.floats())))
def test_refuse_with_nothing_but_invalid(values: list[Any]) -> None:
    """Whatever is given, the answer is networks or ``Invalid``."""
    try:
        found = checked_networks(values)
    except gwf.Invalid:
        return
    assert len(found) == len(values)
