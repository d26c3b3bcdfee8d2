"""What `check` says of servers that don't speak MPTCP, and of who else manages its endpoints."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from ifdefault.host import check_mptcp
from ifdefault.kernel import socket_owners
from ifdefault.model.errors import Problem
from ifdefault.model.findings import from_problem
from ifdefault.model.mptcp import Endpoint

ELF, GO = b"\x7fELF", b"\4\0\0\0Go\0\0"
RESTART = "`mptcpize enable web`, then `systemctl restart web`"
OURS, THEIRS = "203.0.113.10", "192.0.2.9"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(socket_owners, "PROC", tmp_path)
    return tmp_path


def process(proc: Path, pid: int, name: str, cgroup: str = "/user.slice", exe: bytes = ELF) -> None:
    entry = proc / str(pid)
    (entry / "fd").mkdir(parents=True)
    (entry / "comm").write_text(f"{name}\n")
    (entry / "cgroup").write_text(f"0::{cgroup}\n")
    (entry / "exe").write_bytes(bytes(900) + exe)


@pytest.mark.parametrize(
    ("name", "cgroup", "exe", "remedy"),
    [
        ("nginx", "/system.slice/web.service", ELF, f"multipath to its listen .*, or {RESTART}"),
        ("haproxy", "/system.slice/web.service", ELF, f"mptcp@ before .*, or {RESTART}"),
        ("apache2", "/system.slice/web.service", ELF, RESTART),
        ("python3", "/user.slice/session-1.scope", ELF, "start it with `mptcpize run`"),
        ("caddy", "/system.slice/web.service", GO, "start it with GODEBUG=multipathtcp=1 in .*"),
        ("systemd", "/init.scope", ELF, "set SocketProtocol=mptcp in the unit of the socket .*"),
    ],
)
def test_what_to_do_for_it(proc: Path, name: str, cgroup: str, exe: bytes, remedy: str) -> None:
    process(proc, 7, name, cgroup, exe)
    assert re.search(f"{remedy}$", check_mptcp._remedy(name, 7))


def test_a_process_that_has_ended_is_no_program_of_go(proc: Path) -> None:
    assert check_mptcp._remedy("gone", 8) == "start it with `mptcpize run`"


def test_who_has_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = os.fstat(server.fileno()).st_ino
        assert list(socket_owners.owners([inode])) == [(inode, os.getpid())]
    assert list(socket_owners.owners([])) == []
    assert socket_owners.command_name(os.getpid())
    assert socket_owners.command_name(1 << 30) == ""


def problems_of(*endpoints: Endpoint) -> list[Problem]:
    return list(check_mptcp._foreign(endpoints, {OURS}))


def test_endpoints_of_others(proc: Path) -> None:
    implicit = Endpoint(3, OURS, implicit=True)
    assert problems_of(Endpoint(254, OURS, signal=True), implicit) == []
    (hint,) = problems_of(Endpoint(1, THEIRS))
    assert (
        str(hint) == f"mptcp endpoint 1: {THEIRS} is managed by another program; it stays as it is"
    )
    assert hint.hint
    process(proc, 9, "mptcpd")
    (problem,) = problems_of(Endpoint(1, OURS))
    assert str(problem) == (
        f"mptcp endpoint 1: {OURS} is managed by mptcpd, so that ifdefault doesn't announce it;"
        " to have it announced: `systemctl disable --now mptcp`,"
        " `ip mptcp endpoint delete id 1`"
    )
    assert not problem.hint


def test_a_hint_is_worth_knowing_and_nothing_is_wrong() -> None:
    finding = from_problem(Problem("a", "b", "c", warning=True, hint=True))
    assert (finding.level, finding.is_wrong) == ("note", False)
