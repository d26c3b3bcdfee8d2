"""Which entries of a listing are those of some addresses."""

from __future__ import annotations

import pytest

from ifdefault.kernel import conntrack
from ifdefault.kernel.netlink import attribute, nested
from ifdefault.kernel.rtnetlink import packed
from ifdefault.kernel.uapi import netfilter as nf
from ifdefault.model.config import Family


def listed(family: Family, server: str, client: str) -> tuple[bytes, bytes]:
    """An entry of a connection from client to server, and its reply tuple."""

    def ends(direction: int, source: str, destination: str) -> bytes:
        addresses = (
            attribute(conntrack._SRC[family], packed(source)),
            attribute(conntrack._DST[family], packed(destination)),
        )
        ports = nested(nf.CTA_TUPLE_PROTO, attribute(1, b"\6"))
        return nested(direction, nested(nf.CTA_TUPLE_IP, *addresses), ports)

    reply = ends(nf.CTA_TUPLE_REPLY, server, client)
    return bytes(20) + ends(nf.CTA_TUPLE_ORIG, client, server) + reply, reply


@pytest.mark.parametrize("more", [0, 1, 7, 8, 100])
@pytest.mark.parametrize(
    ("family", "server", "clients"),
    [
        (4, "192.0.2.1", ("203.0.113.10", "203.0.113.46", "203.0.113.124")),  # \n, ., |
        (6, "2001:db8::1", ("2001:db8:a::10", "2001:db8:a::2e")),
    ],
)
def test_of_few_and_of_many_addresses_the_same_are_found(
    family: Family, server: str, clients: tuple[str, ...], more: int
) -> None:
    entries = [listed(family, server, client) for client in clients]
    base = "198.51.100." if family == 4 else "fd00::"
    others = [packed(f"{base}{n + 1}") for n in range(more)]
    packet = b"".join(entry for entry, _ in entries)
    for client, (_, reply) in zip(clients, entries, strict=True):
        find = conntrack._reply_tuple_finder(family, [packed(client), *others])
        assert list(find(packet)) == [reply]
