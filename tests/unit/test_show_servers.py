"""What `status` shows of services and their servers, balancing and LANs."""

from __future__ import annotations

import re
from dataclasses import replace

from ifdefault.cli.show import servers
from ifdefault.host.status_forward import ControlGroup, ForwardStatus, ServerStatus, ServiceStatus
from ifdefault.model.report import CheckedServer, DaemonStatus

WEB1, WEB2, DRAINED = ("10.0.0.10", 443), ("10.0.0.11", 8443), ("10.0.0.12", 443)
SERVICE = ServiceStatus(
    "tcp:443, udp:443",
    ("isp-a",),
    (
        ServerStatus("10.0.0.10", 0, 1, (WEB1,), ()),
        ServerStatus("10.0.0.11", 8443, 3, (WEB2,), (WEB2,)),
        ServerStatus("10.0.0.12", 0, 0, (DRAINED,), ()),
    ),
    12,
    (),
)
PLAIN = ServiceStatus("tcp:8000-8099", (), (ServerStatus("fd00::10", 0, 1, (), ()),), 0, ())
STANDING = DaemonStatus(
    pid=1,
    up_s=1.0,
    now_s=100.0,
    config="x",
    servers=(
        CheckedServer("tcp:443, udp:443", *WEB1, "up", 40.0, "answers"),
        CheckedServer("tcp:443, udp:443", *WEB2, "down", 96.8, "connection refused"),
        CheckedServer("tcp:443, udp:443", *DRAINED, "unproven", 99.0, "not checked yet"),
    ),
)


def test_services_and_their_servers() -> None:
    shown = servers.lines(ForwardStatus((SERVICE, PLAIN)), STANDING)
    assert [re.split("  +", line) for line in shown] == [
        ["Forwards", "To", "Weight", "State", "Since", "Cause"],
        ["tcp:443, udp:443", "10.0.0.10:443", "1", "up", "1m00s", "answers"],
        ["tcp:443, udp:443", "10.0.0.11:8443", "3", "down", "3.2s", "connection refused"],
        ["tcp:443, udp:443", "10.0.0.12:443", "drains", "unproven", "1.0s", "not checked yet"],
        ["tcp:8000-8099", "fd00::10", "1", "unchecked"],
        ["tcp:443, udp:443: offered on isp-a only"],
        ["tcp:443, udp:443: 12 connections refused"],
    ]


def test_without_a_daemon() -> None:
    lines = servers.lines(ForwardStatus((SERVICE,)), None)
    assert [line.split()[-1] for line in lines[1:4]] == ["-", "down", "-"]


def test_a_service_without_a_server() -> None:
    stranded = replace(SERVICE, stranded=("tcp:443 IPv4",))
    assert servers.has_problem(ForwardStatus((PLAIN, stranded)))
    assert not servers.has_problem(ForwardStatus((PLAIN, SERVICE)))
    shown = servers.lines(ForwardStatus((stranded,)), STANDING)
    assert shown[-1] == "tcp:443 IPv4: no server is up"


def test_of_many_services_those_with_problems_are_shown() -> None:
    many = tuple(replace(PLAIN, listen=f"tcp:{port}") for port in range(1, 41))
    stranded = replace(PLAIN, listen="tcp:99", stranded=("tcp:99 IPv6",))
    shown = servers.lines(ForwardStatus((*many, SERVICE, stranded)), STANDING)
    services = dict.fromkeys(line.split()[0] for line in shown[1:])
    assert list(services)[:3] == ["tcp:99", "tcp:443,", "tcp:1"]
    assert "and 32 more services" in shown


def test_what_goes_out() -> None:
    found = ForwardStatus(
        follows=True,
        balance={"IPv4": {"isp-a": 75, "isp-b": 25}},
        masquerade=("lan0", "lan1"),
        kept=(
            ControlGroup("/a/ifdefault-isp-b", ("isp-b", "isp-b"), True),
            ControlGroup("/b", ("isp-a", ""), False),
        ),
    )
    assert servers.lines(found, None) == [
        "balance IPv4: isp-a 75 %, isp-b 25 %",
        "masqueraded: lan0, lan1",
        "cgroup /a/ifdefault-isp-b: isp-b, ifdefault exec",
        "cgroup /b: IPv4 isp-a, IPv6 any",
        "forwarded: replies leave by the uplink that the connection came in on",
    ]
    assert servers.lines(ForwardStatus(), None) == []
