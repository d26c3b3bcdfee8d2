"""What `status` shows: a usual host fits 80 columns, and each row names its uplink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.cli import status
from ifdefault.cli.options import Options
from ifdefault.cli.show import paths
from ifdefault.host.status import Default, Status, UplinkStatus
from ifdefault.host.status_forward import ForwardStatus, ServerStatus, ServiceStatus
from ifdefault.host.status_mptcp import Announced, MptcpStatus
from ifdefault.kernel import nft
from ifdefault.kernel.link_stats import LinkStats
from ifdefault.kernel.mptcp_connections import MptcpCount
from ifdefault.model.config import Family
from ifdefault.model.errors import HostError
from ifdefault.model.health import Decision, Health, LineLoad
from ifdefault.model.report import CheckedServer, DaemonStatus, DnsStatus, Grace, Named
from ifdefault.model.usage import Usage

A, B = "datacenter", "backup-lte"
SOURCES: dict[tuple[str, Family], str] = {
    (A, 4): "203.0.113.110",
    (A, 6): "2001:db8:a:1::10",
    (B, 4): "198.51.100.110",
    (B, 6): "2001:db8:b:1::10",
}
GATEWAYS: dict[tuple[str, Family], str] = {
    (A, 4): "203.0.113.101",
    (A, 6): "fe80::a00:27ff:fe4e:66a1",
    (B, 4): "198.51.100.101",
    (B, 6): "2001:db8:b:1::1",
}
DEVS = {A: "enp0s31f6", B: "wwan0"}
CAUSES = {
    "up": "icmp://[2606:4700:4700::1111] answers",
    "down": "8 rounds lost in 422 ms, the gateway answers",
    "recovering": "https://www.example.net/health answers",
}


def default(destination: str, uplink: str, family: Family, *, holds: bool = True) -> Default:
    key = uplink, family
    return Default(
        destination, uplink, GATEWAYS[key], SOURCES[key], 1001, "0x1000000", family, holds
    )


def uplink(name: str, packets: int) -> UplinkStatus:
    addresses = tuple(address for (owner, _), address in SOURCES.items() if owner == name)
    traffic = LinkStats(packets_in=packets, packets_out=packets)
    return UplinkStatus(
        name, DEVS[name], "", True, addresses, (), "conntrack", "", traffic, 7, 1001, "0x1000000"
    )


def health(name: str, family: Family, state: str) -> Health:
    cause = CAUSES[state]
    return Health(
        name, family, state, 100.0, cause, 1.0, 123.4, bursting=True, until_s=1e4  # type: ignore[arg-type]
    )  # fmt: skip


SERVERS = (("10.0.0.10", 8443), ("2001:db8:c::10", 8443))
HOST = Status(
    applied=True,
    defaults=(
        default(f"default:{DEVS[A]}", A, 4),
        default(f"default:{DEVS[B]}", B, 4, holds=False),
        default("default", A, 4),
        default(f"default:{DEVS[A]}", A, 6),
        default(f"default:{DEVS[B]}", B, 6),
        default("default", B, 6),
    ),
    uplinks=(uplink(A, 123_456_789_012), uplink(B, 1)),
    strangers={},
    unknown_macs={},
    redirected_udp=(53, 123),
    differs=(),
    forward=ForwardStatus(
        (
            ServiceStatus(
                "tcp:443, udp:443",
                (A, B),
                tuple(ServerStatus(*server, 100, (server,), ()) for server in SERVERS),
                12,
                (),
            ),
        ),
        balance={"IPv4": {A: 75, B: 25}},
    ),
    mptcp=MptcpStatus(
        tuple(Announced(name, family, a, name == B) for (name, family), a in SOURCES.items()),
        MptcpCount(2031, 412, 398),
    ),
)
DAEMON = DaemonStatus(
    pid=1,
    up_s=1e6,
    now_s=3000.0,
    config="f.toml",
    # as they became usable: B's IPv4, then A's IPv6 …
    health=(
        health(B, 4, "up"),
        health(A, 6, "down"),
        health(A, 4, "recovering"),
        health(B, 6, "up"),
    ),
    decision=Decision(order=((4, (A, B)), (6, (B, A))), usable=((4, (A, B)), (6, (B,)))),
    forced={A: "drain"},
    rates={A: (123_000_000.0, 45_600_000.0), B: (999.0, 0.0)},
    lines=(LineLoad(A, 0.97, "out", 50_000_000, 2), LineLoad(B, 0.0, "in", 2_500_000_000)),
    dns=DnsStatus(
        (
            Named(
                "www.example.net", "arrival-only", 30,
                tuple((name, address) for (name, _), address in SOURCES.items()), 100.0,
            ),
        )
    ),
    servers=tuple(
        CheckedServer("tcp:443", *server, "unproven", 1.0, "connection refused")
        for server in SERVERS
    ),
)  # fmt: skip


def shown(host: Status = HOST, daemon: DaemonStatus | None = DAEMON) -> list[str]:
    return status._lines(status._Snapshot(host, daemon))


def test_a_usual_host_fits_80_columns() -> None:
    assert [line for line in shown() if len(line) > 80] == []


def test_it_loses_nothing_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = " ".join(shown()).replace(",", "").split()
    monkeypatch.setenv("COLUMNS", "300")
    assert sorted(narrow) == sorted(" ".join(shown()).replace(",", "").split())


def test_long_ipv6_addresses_fit_too() -> None:
    long = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"
    defaults = tuple(replace(d, gateway=long, source=long) for d in HOST.defaults)
    uplinks = tuple(replace(u, addresses=4 * (long,)) for u in HOST.uplinks)
    lines = shown(replace(HOST, defaults=defaults, uplinks=uplinks))
    assert [line for line in lines if len(line) > 80] == []
    assert sum(line.count(long) for line in lines) == 20


def test_the_paths_of_an_uplink_are_together_and_each_row_names_it() -> None:
    rows = [line.split()[:3] for line in paths.lines(DAEMON) if "  IPv" in line]
    assert rows == [
        [B, "IPv4", "up"],
        [B, "IPv6", "up"],
        [A, "IPv4", "recovering"],
        [A, "IPv6", "down"],
    ]


def test_sections_have_one_empty_line_between_them() -> None:
    lines = shown()
    heads = [after for before, after in zip(["", *lines], lines, strict=False) if not before]
    assert [head.split()[0] for head in heads] == [
        "Destination", "Uplink", "Name", "Forwards", "Uplink", "Uplink", "Uplink", "wildcard",
    ]  # fmt: skip
    assert lines[-1]


def test_when_connections_return_to_a_better_uplink() -> None:
    graces = (Grace(B, 4, 3012.0), Grace(B, 6, 3020.0))
    text = f"{B}: 12s until its connections return to a better one"
    assert [line for line in shown(daemon=replace(DAEMON, graces=graces)) if "until" in line] == [
        text
    ]


def test_whom_mptcp_helps() -> None:
    announced = f"{B:<10}  {SOURCES[B, 4]} as backup, {SOURCES[B, 6]} as backup"
    count = "412 of 2,031 connections use MPTCP, 398 (19 %) could go on over another uplink"
    assert shown()[shown().index(announced) + 1] == count
    empty = replace(HOST, mptcp=MptcpStatus((), MptcpCount()))
    assert "MPTCP announces nothing" in shown(empty)
    assert not [line for line in shown(replace(HOST, mptcp=None)) if "MPTCP" in line]


def test_how_full_the_lines_are_is_below_their_traffic() -> None:
    lines = shown()
    (head,) = (at for at, line in enumerate(lines) if "Misrouted" in line)
    assert lines[head + 3 : head + 5] == [
        f"{A}: 97 % of 50 Mbit/s out, a quarter of its weight",
        f"{B}: 0 % of 2.5 Gbit/s in",
    ]


def test_without_a_daemon_there_are_no_rates() -> None:
    lines = shown(daemon=None)
    assert "no daemon runs: nothing is probed" in lines
    (head,) = (line for line in lines if "Misrouted" in line)
    assert head.split() == ["Uplink", "Packets", "in", "Packets", "out", "Misrouted"]


def test_before_apply_nothing_is_said_to_be_forwarded() -> None:
    host = replace(HOST, applied=False, forward=replace(HOST.forward, follows=True))
    assert status._lines(status._Snapshot(host, None))[0] == "not applied: run ifdefault apply"
    assert not [line for line in status._lines(status._Snapshot(host, None)) if "tcp:443" in line]


def test_an_unconfirmed_apply_is_shown_and_not_ok() -> None:
    text = "undone in 34 s unless you run: ifdefault confirm"
    waiting = status._Snapshot(HOST, None, unconfirmed=text)
    assert text in status._lines(waiting)
    assert status._Snapshot(HOST, None).is_ok
    assert not waiting.is_ok


# --- an ordinary user ---------------------------------------------------------------------


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Options:
    """A user who may not read rulesets, on a host where nothing else may be read either."""

    def prepare(*_: object, rights: bool, **__: object) -> None:
        assert not rights
        raise HostError("permission denied")

    monkeypatch.setattr(nft, "has_rights", lambda: False)
    monkeypatch.setattr("ifdefault.host.transaction.prepare_file", prepare)
    return Options(run_dir=Path("/nonexistent"), state_dir=Path("/nonexistent"))


def test_what_needs_rights_is_named_in_one_line() -> None:
    lines = shown(replace(HOST, unread="the packet filter"))
    assert lines[-2:] == ["", "not read without root's rights: the packet filter"]


def test_if_nothing_else_may_be_read_the_daemons_view_remains(
    nobody: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifdefault.cli.daemon_client.status", lambda _: DAEMON)
    lines = status._lines(status._read(nobody))
    assert lines[0].startswith("Uplink ")
    assert lines[-1] == "not read without root's rights: this host (permission denied)"


def test_without_a_daemon_it_is_an_error(nobody: Options) -> None:
    with pytest.raises(HostError, match="permission denied"):
        status._read(nobody)


def test_of_very_many_addresses_the_first_are_shown() -> None:
    many = tuple(f"192.0.2.{n}" for n in range(200))
    assert status._some(many[:17]) == many[:17]
    assert status._some(many) == (*many[:16], "and 184 more")


def test_what_is_used_of_budgets_and_who_stands_by() -> None:
    month = "2026-11-01", "2026-12-01"
    usage = (
        Usage("free", 10**9, 50 * 10**9, *month),
        Usage("lte", 41_300_000_000, 50 * 10**9, *month),
        Usage("gone", 60 * 10**9, 50 * 10**9, *month, "down"),
        Usage("sat", 950_000, 0, *month),
    )
    decision = Decision(
        standby=(("lte", "metered"), ("sat", "metered"), ("night", "outside its hours"))
    )
    daemon = DaemonStatus(1, 1.0, 1.0, "", decision=decision, usage=usage)
    assert list(paths.usage_lines(daemon)) == [
        "free: 1.0 of 50.0 GB (2 %) until 1 December",
        "lte: 41.3 of 50.0 GB (83 %) until 1 December, metered, standby",
        "gone: 60.0 of 50.0 GB (120 %) until 1 December, budget used up, down",
        "sat: 950 kB until 1 December, metered, standby",
        "night: outside its hours, standby",
    ]
    assert [daemon.is_down_by_budget(name) for name in ("lte", "gone")] == [False, True]
    assert not replace(daemon, forced={"gone": "up"}).is_down_by_budget("gone")
