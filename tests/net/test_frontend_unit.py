"""A frontend that the engine connects to, as one in a unit of systemd's; tests/systemd has the
real one. Here this process is systemd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.process import frontend_connection
from ifdefault.daemon.process.frontend import Ended, FrontendProcess, Started
from ifdefault.daemon.process.frontend_connection import UNIT, start_frontend
from ifdefault.ipc import privileges
from ifdefault.ipc.child import python
from ifdefault.ipc.messages import Message, Ping, Pong, Ready, encode
from ifdefault.model.config import DaemonConfig
from ifdefault.model.errors import HostError
from tests.net.test_frontend import until

NOBODY = 65534, 65534
Serve = Callable[[socket.socket], object]


class Systemd:
    """Listens at `path`; `serve` gets each connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.serve: Serve = self.start
        self.children: list[subprocess.Popen[bytes]] = []
        self.held: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.listener.bind(str(path))
        self.listener.listen()

    def listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.listener, self._accept)

    def _accept(self) -> None:
        self.serve(self.listener.accept()[0])

    def start(self, sock: socket.socket) -> None:
        with sock:
            fd = sock.fileno()
            command = python("ifdefault.frontend.main", fd, *privileges.possible(*NOBODY))
            self.children.append(subprocess.Popen(command, pass_fds=[fd]))

    def hold(self, sock: socket.socket, *messages: Message) -> None:
        """A process that only says this."""
        self.held.append(sock)
        for message in messages:
            sock.send(encode(message))


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    made = Systemd(tmp_path / UNIT)
    monkeypatch.setattr(frontend_connection, "_SYSTEMD", os.getpid())
    monkeypatch.setattr(frontend_connection, "_CGROUP", "")  # every process is in it
    yield made
    for sock in (made.listener, *made.held):
        sock.close()
    for child in made.children:
        child.kill()
        child.wait()


def nothing(_: object) -> None:
    """Hear, and pass over."""


async def fails(systemd: Systemd) -> str:
    systemd.listen()
    with pytest.raises(HostError) as raised:
        await start_frontend(NOBODY, nothing, nothing, unit=systemd.path)
    return str(raised.value)


def test_it_is_used_like_a_child_and_its_end_is_heard(systemd: Systemd) -> None:
    async def main() -> None:
        systemd.listen()
        heard, ends = list[Any](), list[str]()
        for end in (lambda f: f.kill("enough"), lambda f: os.kill(f.pid, signal.SIGKILL)):
            used = await start_frontend(NOBODY, heard.append, ends.append, unit=systemd.path)
            assert used.pid == systemd.children[-1].pid
            used.send(Ping(7))
            await until(lambda: Pong(7) in heard, "a pong")
            heard.clear()
            end(used)
            await until(lambda: ends, "its end")
            assert ends.pop().endswith("see journalctl -u 'ifdefault-frontend@*'")
            used.close()
        used = await start_frontend(NOBODY, heard.append, ends.append, unit=systemd.path)
        used.close()
        await used.over()
        assert systemd.children[-1].wait() == 0
        assert not ends

    asyncio.run(main())


def test_only_systemd_is_connected_to(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(frontend_connection, "_SYSTEMD", 1)
    said = asyncio.run(fails(systemd))
    assert said == f"{systemd.path}: process {os.getpid()} listens there, not systemd; end it"


@pytest.mark.parametrize("serve", ["nothing", "closed", "another", "privileged"])
def test_what_is_no_frontend_is_left_and_not_killed(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, serve: str
) -> None:
    """Only a process in the unit is: it may name any."""
    monkeypatch.setattr(frontend_connection, "READY_S", 0.3)
    monkeypatch.setattr(frontend_connection, "_GRACE_S", 0.1)
    other = subprocess.Popen(["sleep", "60"])
    systemd.children.append(other)

    def says_ready(sock: socket.socket) -> None:
        systemd.hold(sock, Ready(other.pid, "1"))

    serves: dict[str, tuple[Serve, str]] = {
        "nothing": (systemd.hold, "not ready after 0.3 s"),
        "closed": (lambda sock: sock.close(), "it closed the channel"),
        "another": (says_ready, f"process {other.pid} isn't in its unit"),
        "privileged": (says_ready, "it kept privileges: "),
    }
    systemd.serve, why = serves[serve]
    if serve == "another":
        monkeypatch.setattr(frontend_connection, "_CGROUP", "/ifdefault-frontend@")
    said = asyncio.run(fails(systemd))
    assert said.startswith(f"the frontend didn't start: {why}")
    assert (other.poll() is None) == (serve != "privileged")


class Log:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, kind: str, text: str, *, severity: str = "") -> None:
        self.texts.append(text)


def test_if_its_unit_fails_it_is_a_child_and_the_unit_is_tried_later(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend_connection, "_GRACE_S", 0.01)

    connections = list[socket.socket]()

    def refuse(sock: socket.socket) -> None:
        connections.append(sock)
        sock.close()

    async def main() -> None:
        systemd.listen()
        systemd.serve = refuse
        log, events = Log(), list[object]()
        config = DaemonConfig(user="nobody")
        process = FrontendProcess(systemd.path.parent, config, log, events.append)  # type: ignore[arg-type]
        process.start()
        for turn in range(2):
            await until(lambda: events == [Started()], "it runs")
            assert process._frontend is not None
            assert not systemd.children
            assert len(connections) == 1
            said = [text for text in log.texts if "can't run in its unit" in text]
            assert len(said) == 1
            events.clear()
            if turn:
                systemd.serve = systemd.start
                process._unit_due_s = 0.0
            os.kill(process._frontend.pid, signal.SIGKILL)
            await until(lambda: Ended() in events, "its end")
            events.remove(Ended())
        await until(lambda: events == [Started()], "it runs in its unit")
        assert len(systemd.children) == 1
        await process.close()
        assert systemd.children[0].wait() == 0

    asyncio.run(main())
