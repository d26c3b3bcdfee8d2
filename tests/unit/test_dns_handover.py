"""What the engine sends to a DNS server that takes over from another."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ifdefault import __version__
from ifdefault.daemon.dns.cookie_secrets import CookieSecrets
from ifdefault.daemon.dns.embedded import Nameserver
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process import dns_connection
from ifdefault.daemon.process.dns_connection import Connection
from ifdefault.daemon.process.dns_server import DnsServerProcess
from ifdefault.host.store import Store
from ifdefault.ipc import messages
from ifdefault.ipc.messages import DNS_VERSION, Listen, Ready, Served, ZoneEnd, encode, version_of
from ifdefault.model.config import DaemonConfig
from ifdefault.model.dns import ServerConfig


@dataclass(frozen=True)
class Ping:
    token: str


def test_builds_whose_messages_differ_are_versions_of_their_own() -> None:
    assert version_of([messages.Ping]) == version_of([messages.Ping])
    assert version_of([messages.Ping]) != version_of([Ping])  # type: ignore[list-item]
    assert DNS_VERSION.startswith(f"{__version__}+")


def test_a_successor_without_sockets_gets_all(tmp_path: Path) -> None:
    async def main() -> None:
        sent: list[Any] = []
        process = SimpleNamespace(
            post=lambda message, fds=(): sent.append(message),
            handed_over=lambda: None,
            waits=False,
        )
        store = Store(tmp_path)
        nameserver = Nameserver(store, cast("Any", process), EventLog(store))
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            nameserver._server = ServerConfig(port=sock.getsockname()[1])
            nameserver._listeners._port = sock.getsockname()[1]
            nameserver._listeners._desired = {("udp", "127.0.0.1"): ((0, "isp-a"),)}
            held = Listen((1 << 31) - 1, "udp", "127.0.0.1", ((0, "isp-a"),))
            cast("Any", process).started([(held, sock)], [])
            assert [m for m in sent if isinstance(m, Listen)] == []
            cast("Any", process).started([], [])
            [listen] = [m for m in sent if isinstance(m, Listen)]
            assert listen == Listen(1, "udp", "127.0.0.1", ((0, "isp-a"),))
            first, second = (m.cookie_secrets for m in sent if isinstance(m, ZoneEnd))
            kept, _ = CookieSecrets(Store(tmp_path)).current()  # as the next engine reads them
            assert first == second == kept
        await nameserver.close()

    asyncio.run(main())


def test_what_a_server_of_another_version_reports_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers until another has taken over, and must not be killed for it."""
    monkeypatch.setattr(dns_connection, "privileges_kept", lambda *_: "")  # this process stands in
    ended: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "dns.sock"))
        listener.listen()

        async def main() -> None:
            connection = Connection(
                tmp_path / "dns.sock", lambda *_: None, lambda _, cause: ended.append(cause)
            )
            with listener.accept()[0] as server:
                server.send(encode(Ready(os.getpid(), "0.1.0")))
                await connection.ready
                server.send(b'[{"type": "Served", "more": 1}]')
                server.send(encode(Served((), ())))
            while not ended:  # it has read all, up to the end
                await asyncio.sleep(0.01)

        asyncio.run(main())
    assert ended == [""]


def test_a_full_run_directory_costs_no_more_than_a_warning(tmp_path: Path) -> None:
    texts: list[str] = []
    event_log = cast("Any", SimpleNamespace(note=lambda kind, text, severity: texts.append(text)))
    run_dir = tmp_path / "not-there"

    async def main() -> None:
        process = DnsServerProcess(run_dir, DaemonConfig(), event_log, print)
        server = SimpleNamespace(pid=1, version=DNS_VERSION, path=process._own, held=[])
        process._use(cast("Any", server))
        assert process.is_used

    asyncio.run(main())
    assert texts == [f"{run_dir}/dns-server: no such file or directory"]
