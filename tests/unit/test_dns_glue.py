"""After a renumbering, the daemon says which glue of the parent is stale."""

from __future__ import annotations

from pathlib import Path

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.embedded import Nameserver
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.dns_server import DnsServerProcess
from ifdefault.host.store import Store
from ifdefault.model.config import Config, UplinkConfig
from ifdefault.model.dns import CandidateAddresses, DnsConfig, ServerConfig

ZONE = "shop.example.net"
CONFIG = Config(
    (UplinkConfig("isp-a", "wan0"),),
    dns=DnsConfig(server=ServerConfig((ZONE,), nameservers=("ns.other.example",))),
)
A, RENUMBERED, A6 = "203.0.113.10", "203.0.113.77", "2001:db8:a::10"
STALE = f"{ZONE}: ns-isp-a.{ZONE} A {A} is now {RENUMBERED}; change the parent's glue"


class Engine:
    """One that publishes the addresses of its only uplink."""

    def __init__(self, directory: Path) -> None:
        store = Store(directory)
        self._event_log = EventLog(store)
        process = DnsServerProcess(directory, CONFIG.daemon, self._event_log, lambda _: None)
        self._server = Nameserver(store, process, self._event_log)

    def publish(self, *addresses: str) -> list[str]:
        """What it notes then."""
        before = len(self._event_log.recent(100))
        candidates = (CandidateAddresses("isp-a", 1, addresses),)
        self._server.publish(0.0, Publish(CONFIG, (), candidates, (), ()))
        return [event.text for event in self._event_log.recent(100)[before:]]


def test_an_address_that_changed(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    assert engine.publish(A) == []
    assert engine.publish(A, A6) == [], "another family is most likely a late one"
    assert engine.publish(A6) == [], "and one that is missing comes back"
    assert engine.publish(RENUMBERED, A6) == [STALE]
    assert engine.publish(RENUMBERED) == []
    assert engine.publish(A) == [
        f"{ZONE}: ns-isp-a.{ZONE} A {RENUMBERED} is now {A}; change the parent's glue"
    ]


def test_a_renumbering_while_no_engine_ran(tmp_path: Path) -> None:
    Engine(tmp_path).publish(A)
    assert Engine(tmp_path).publish(A) == []
    assert Engine(tmp_path).publish(RENUMBERED) == [STALE]
    assert Engine(tmp_path).publish(RENUMBERED) == []
