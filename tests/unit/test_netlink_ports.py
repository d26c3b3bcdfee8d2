"""A netlink socket's port id, and those of all that this process has open."""

from __future__ import annotations

import os
from pathlib import Path

from ifdefault.kernel.netlink import Netlink, open_ports
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER, NETLINK_ROUTE


def test_ports_of_one_protocol_are_found_and_nothing_is_opened_or_closed(tmp_path: Path) -> None:
    with (
        open(tmp_path / "file", "w") as file,
        Netlink() as one,
        Netlink() as other,
        Netlink(NETLINK_NETFILTER) as foreign,
    ):
        before = os.listdir("/proc/self/fd")
        found = open_ports(NETLINK_ROUTE)
        assert os.listdir("/proc/self/fd") == before
        assert {one.port, other.port} <= found
        assert one.port != other.port
        assert foreign.port in open_ports(NETLINK_NETFILTER)
        file.write("still open")
