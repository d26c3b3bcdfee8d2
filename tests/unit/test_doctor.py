"""The doctor's parts that need no network: findings, sizes, answers of STUN, the other host."""

from __future__ import annotations

import socket
import struct
import time
from itertools import pairwise
from pathlib import Path

import click
import pytest

from ifdefault.cli.doctor import _endpoint
from ifdefault.host.doctor import from_host, host_state, tasks
from ifdefault.host.doctor.echo import Echo, internet_checksum, new_key, request
from ifdefault.host.doctor.from_host import Port
from ifdefault.host.doctor.path_mtu import between
from ifdefault.host.doctor.public_address import read_stun
from ifdefault.model.errors import Problem
from ifdefault.model.findings import Finding, from_problem, sorted_findings
from ifdefault.model.health import Way

# --- findings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remedy", "commands", "advice"),
    [
        ("run `ip link set dev wan0 up`", ["ip link set dev wan0 up"], ""),
        ("open it to clients: `a b`, `c d`", ["a b", "c d"], "open it to clients:"),
        ("run `a`, and set it in /etc/x", ["a"], "run this, and set it in /etc/x"),
        ("run ifdefault reload", ["ifdefault reload"], ""),
        (
            "apply adds its own, pref 4999",
            ["ifdefault apply"],
            "apply adds its own, pref 4999",
        ),
        ("look at the cable", [], "look at the cable"),
        ("", [], ""),
    ],
)
def test_commands_of_a_remedy(remedy: str, commands: list[str], advice: str) -> None:
    finding = from_problem(Problem("where", "what", remedy, warning=True))
    assert (finding.level, list(finding.commands), finding.advice) == ("warning", commands, advice)


def test_a_command_may_be_in_what_is_wrong() -> None:
    finding = Finding("warning", "apply", "undone in 9 s unless you run: ifdefault confirm")
    assert finding.commands == ("ifdefault confirm",)


def test_the_worst_comes_first_and_a_command_once() -> None:
    mtu = "run `ip link set dev wan0 mtu 1400`"
    found = [
        Finding("fact", "isp-a IPv4", "answers"),
        Finding("warning", "kernel", "differs", "run `ifdefault apply`"),
        Finding("error", "isp-a IPv4", "lost", mtu),
        Finding("error", "isp-a IPv6", "lost", mtu),
        Finding("error", "kernel", "isn't applied", "run `ifdefault apply`"),
    ]
    ordered = sorted_findings(found)
    assert [(each.level, each.subject) for each in ordered] == [
        ("error", "isp-a IPv4, isp-a IPv6"),
        ("error", "kernel"),
        ("warning", "kernel"),
        ("fact", "isp-a IPv4"),
    ]
    assert [each.commands for each in ordered[:3]] == [
        ("ip link set dev wan0 mtu 1400",),
        ("ifdefault apply",),
        (),
    ]


# --- packets ------------------------------------------------------------------------------


@pytest.mark.parametrize(("passed", "lost"), [(1400, 1401), (1400, 1402), (84, 1500), (1500, 9001)])
def test_sizes_between(passed: int, lost: int) -> None:
    sizes = between(passed, lost)
    assert len(sizes) <= 16
    edges = [passed, *sizes, lost]
    assert edges == sorted(set(edges))
    widest = max(b - a for a, b in pairwise(edges))
    assert widest <= -(-(lost - passed) // 17)


def test_any_edge_is_found_in_three_rounds() -> None:
    """The first round has the common sizes, from the least that IPv6 needs."""
    for edge in range(1280, 1500):
        passed, lost = 1280, 1500
        for _ in range(2):
            sizes = between(passed, lost)
            passed = max([size for size in sizes if size <= edge], default=passed)
            lost = min([size for size in sizes if size > edge], default=lost)
        assert (passed, lost) == (edge, edge + 1)


@pytest.mark.parametrize("size", [84, 1499, 1500])
def test_a_request_has_its_size_and_a_valid_checksum(size: int) -> None:
    way = Way("isp-a", 4, "203.0.113.10", "wan0", 0)
    packet = request(way, Echo("1.1.1.1", size), 7, new_key())
    assert len(packet) == size - 20
    assert internet_checksum(packet) == 0
    assert struct.unpack_from("!BBxxxxH", packet) == (8, 0, 7)


ID = bytes(range(12))


def stun(attribute: int, value: bytes, kind: int = 0x0101, number: bytes = ID) -> bytes:
    body = struct.pack("!HH", attribute, len(value)) + value
    return struct.pack("!HHI", kind, len(body), 0x2112A442) + number + body


XORED = bytes.fromhex("0001a147e112a643")  # RFC 5769, 2.2: 192.0.2.1, port 32853


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (stun(0x0020, XORED), ("192.0.2.1", 32853)),
        (stun(0x0001, bytes.fromhex("00018055c0000201")), ("192.0.2.1", 32853)),
        (stun(0x0020, XORED, number=bytes(12)), None),
        (stun(0x0020, XORED, kind=0x0111), None),
        (stun(0x8022, b"a server"), None),
        (stun(0x0020, XORED)[:-3], None),
        (stun(0x0020, XORED)[:19], None),
        (b"", None),
    ],
)
def test_what_a_stun_server_answers(message: bytes, expected: tuple[str, int] | None) -> None:
    assert read_stun(message, ID) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("stun.example.net", ("stun.example.net", 3478)),
        ("stun.example.net:19302", ("stun.example.net", 19302)),
        ("[2001:db8::1]", ("2001:db8::1", 3478)),
        ("[2001:db8::1]:19302", ("2001:db8::1", 19302)),
    ],
)
def test_stun_server(text: str, expected: tuple[str, int] | None) -> None:
    assert _endpoint(text) == expected


@pytest.mark.parametrize("text", ["a:b", "a:0", "a:65536", ":1"])
def test_no_stun_server(text: str) -> None:
    with pytest.raises(click.UsageError, match="no valid port; use 1 to 65535"):
        _endpoint(text)


# --- the host, and another one --------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "most", "level"), [(10, 100, "fact"), (90, 100, "warning"), (100, 100, "error")]
)
def test_the_connection_table(tmp_path: Path, count: int, most: int, level: str) -> None:
    (tmp_path / "nf_conntrack_count").write_text(f"{count}\n")
    (tmp_path / "nf_conntrack_max").write_text(f"{most}\n")
    (finding,) = host_state.connections(tmp_path)
    assert finding.level == level
    wanted = ("sysctl -w net.netfilter.nf_conntrack_max=200",) if finding.is_wrong else ()
    assert finding.commands == wanted
    assert list(host_state.connections(tmp_path / "none")) == []


def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_ports_from_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shell is a real one, and so are the ports."""
    ssh(tmp_path, monkeypatch, "echo a greeting; exec sh -s")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        is_open, closed = server.getsockname()[1], other.getsockname()[1]
        ports = [Port("tcp", "127.0.0.1", number) for number in (is_open, closed)]
        found = list(from_host.examine("u@h", ports, 9.0))
    remedy = f"see what listens there: `ss -Hltnp sport = :{closed}`"
    assert [(each.level, each.what, each.remedy) for each in found] == [
        ("error", f"TCP port {closed} of 127.0.0.1 is refused", remedy),
        ("fact", f"127.0.0.1 is open: tcp:{is_open}", ""),
    ]


def test_another_host_that_cannot_be_logged_in_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [Port("tcp", "127.0.0.1", 9)]
    ssh(tmp_path, monkeypatch, "echo 'u@h: Permission denied (publickey).' >&2; exit 255")
    (finding,) = from_host.examine("u@h", ports, 9.0)
    assert finding.what == "ssh failed: u@h: Permission denied (publickey)."
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (finding,) = from_host.examine("u@h", ports, 9.0)
    assert finding.remedy == "install openssh-client"


def test_checks_that_fail_or_hang_are_findings() -> None:
    def hang() -> list[Finding]:
        time.sleep(600)
        return []

    def fail() -> list[Finding]:
        raise ZeroDivisionError("x")

    def forbid() -> list[Finding]:
        raise PermissionError

    good = Finding("fact", "good", "is well")
    seen: list[tuple[int, int]] = []
    found = tasks.run(
        [("good", lambda: [good]), ("hangs", hang), ("fails", fail), ("forbidden", forbid)],
        time.monotonic() + 0.5,
        lambda done, count: seen.append((done, count)),
    )
    assert [(each.level, each.subject, each.what) for each in found] == [
        ("fact", "good", "is well"),
        ("warning", "fails", "internal error: ZeroDivisionError: x"),
        ("note", "forbidden", "not tried; it needs root's rights"),
        ("note", "hangs", "not finished in time"),
    ]
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
