"""What the engine sends to a DNS server that takes over from another."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ifdefault.daemon.dns import embedded
from ifdefault.daemon.dns.embedded import Nameserver
from ifdefault.daemon.event_log import EventLog
from ifdefault.host.store import Store
from ifdefault.ipc.messages import Listen


def test_a_successor_without_sockets_gets_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    process = SimpleNamespace(
        post=lambda message, fds=(): sent.append(message), handed_over=lambda: None
    )
    store = Store(tmp_path)
    nameserver = Nameserver(store, cast("Any", process), EventLog(store))
    monkeypatch.setattr(embedded.open_dns_sockets, "fits", lambda *_, **__: True)
    nameserver._desired = {("udp", "192.0.2.1"): ((0, "isp-a"),)}
    held = Listen((1 << 31) - 1, "udp", "192.0.2.1", ((0, "isp-a"),))
    with socket.socket() as sock:
        cast("Any", process).started([(held, sock)], [])
        assert sent == []
        cast("Any", process).started([], [])
        assert sent == [Listen(1, "udp", "192.0.2.1", ((0, "isp-a"),))]
