"""What systemd is told, by a socket of the test's own."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifdefault.ipc.sd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        abstract = f"\0ifdefault-{secrets.token_hex(4)}"
        sock.bind(abstract if request.param == "abstract" else str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def told(manager: socket.socket, **more: str) -> Notifier:
    """A notifier in the environment that this manager gives."""
    name = manager.getsockname()
    place = f"@{name[1:].decode()}" if isinstance(name, bytes) else name
    return Notifier({"NOTIFY_SOCKET": place, **more})


def test_the_life_of_a_service(manager: socket.socket) -> None:
    notifier = told(manager)
    notifier.ready("2 uplinks")
    assert manager.recv(1000) == b"READY=1\nSTATUS=2 uplinks"
    notifier.ready("isp-a\nis down")
    assert manager.recv(1000) == b"READY=1\nSTATUS=isp-a is down"
    before_us = time.monotonic_ns() // 1000
    notifier.reloading()
    first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(value) <= time.monotonic_ns() // 1000
    notifier.ready()
    notifier.stopping()
    assert [manager.recv(1000) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
    notifier.close()
    notifier.ready()
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


def test_the_watchdog(manager: socket.socket) -> None:
    notifier = told(manager, WATCHDOG_USEC="8000000", WATCHDOG_PID=str(os.getpid()))
    assert notifier.watchdog_s == 8
    for now in (100.0, 100.5, 101.9, 102.0, 103.9, 104.1):
        notifier.alive(now)
    assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
    notifier.close()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
def test_no_watchdog(manager: socket.socket, more: dict[str, str]) -> None:
    notifier = told(manager, **more)
    notifier.alive(100.0)
    assert notifier.watchdog_s == 0
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
    notifier.close()


@pytest.mark.parametrize("place", [None, "", "relative", "vsock:2:1", "/no/such/socket"])
def test_nobody_to_tell(place: str | None) -> None:
    notifier = Notifier({} if place is None else {"NOTIFY_SOCKET": place})
    notifier.ready("x")
    notifier.alive(1.0)
    notifier.stopping()
    notifier.close()


def test_a_manager_that_doesnt_read(manager: socket.socket) -> None:
    notifier = told(manager)
    for _ in range(5000):
        notifier.ready("x" * 100)
    notifier.close()
