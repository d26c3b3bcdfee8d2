"""The lab's DNS and the story of an outage, as far as they are pure."""

from __future__ import annotations

import dns.name
import dns.zone
import pytest

from ifdefault.config import parse
from ifdefault.lab import demo_outage
from ifdefault.lab.clients_by_name import Visit
from ifdefault.lab.dns import render_zones
from ifdefault.lab.fitting import fit
from ifdefault.lab.topology import DelegatedZone, load, names

OWN = ("203.0.113.10", "2001:db8:a::10")


def delegated(*zones: str) -> list[DelegatedZone]:
    return [DelegatedZone(zone, ((f"ns-isp-a.{zone}", OWN),)) for zone in zones]


def read(zones: dict[str, str]) -> dict[str, dns.zone.Zone]:
    """As a server would; what is out of zone or has no SOA is an error."""
    return {name: dns.zone.from_text(text, f"{name}.") for name, text in zones.items()}


def test_every_parent_delegates_with_glue() -> None:
    zones = read(render_zones(delegated("www.example", "www.example.net", "other"), OWN, 7))
    assert set(zones) == {"", "example", "example.net"}
    parent = zones["example"]
    (server,) = parent.find_rdataset("www", "NS")
    assert server.target.derelativize(parent.origin).to_text() == "ns-isp-a.www.example."
    assert [it.address for it in parent.find_rdataset("ns-isp-a.www", "A")] == [OWN[0]]
    assert [it.address for it in parent.find_rdataset("ns-isp-a.www", "AAAA")] == [OWN[1]]
    static = parent.find_rdataset("static", "A")
    assert (static.ttl, static[0].address) == (7, OWN[0])
    root = zones[""]
    for name in ("example", "example.net", "other"):
        assert root.find_rdataset(dns.name.from_text(name, None), "NS")
    assert root.find_rdataset("ns-isp-a.other", "A")


def test_a_zone_below_another_of_the_hosts_is_that_ones_own() -> None:
    zones = read(render_zones(delegated("example.net", "www.example.net"), OWN, 5))
    assert set(zones) == {"", "net"}
    assert zones["net"].get_rdataset("www.example", "NS") is None


def test_a_zone_that_is_called_as_our_own_name() -> None:
    zones = read(render_zones(delegated("static.example"), OWN, 5))
    assert zones["example"].get_rdataset("static", "A") is None
    assert zones["example"].get_rdataset("static", "NS")


@pytest.mark.parametrize("name", names())
def test_every_topology_has_a_name_server_on_each_uplink(name: str) -> None:
    topology = load(name)
    (delegation,) = topology.delegations()
    uplinks = parse(topology.config, "ifdefault.toml").uplinks
    assert [server for server, _ in delegation.nameservers] == [
        f"ns-{uplink.name}.www.example" for uplink in uplinks
    ]
    assert all(addresses for _, addresses in delegation.nameservers)


def test_the_zones_of_ones_own_config_are_delegated() -> None:
    text = """
    [dns.server]
    zones = ["www.example.net", "www.example.org"]
    [[dns.name]]
    name = "www.example.net"
    [uplink.a-very-long-name-of-an-uplink]
    interface = "eth0"
    addresses = ["192.0.2.77"]
    """
    topology = fit(parse(text, "my.toml"), text, "my.toml")
    server = "ns-a-very-long-name-of-an-uplink"
    assert topology.delegations() == (
        DelegatedZone("www.example.net", ((f"{server}.www.example.net", ("192.0.2.77",)),)),
        DelegatedZone("www.example.org", ((f"{server}.www.example.org", ("192.0.2.77",)),)),
    )


def test_the_fate_of_visitors() -> None:
    """The cut is at 100 s, the end of it at 106 s."""
    visits = [
        Visit(at_s, "www", 4, OWN[0], "answered" if ok else "hung", 0.1)
        for at_s, ok in ((99.9, True), (100.0, False), (100.1, True), (103.2, False), (108.0, True))
    ]
    fate = demo_outage.summarize(visits, {OWN[0]}, 100.0, 106.0)
    assert (fate.tried, fate.failed) == (5, 2)
    assert fate.last_failed_s == pytest.approx(3.2)
    assert fate.return_s == pytest.approx(2.0)
    assert [(span.at_s, span.tried, span.answered) for span in fate.spans] == [
        (-0.25, 1, 1), (0.0, 2, 1), (3.0, 1, 0), (8.0, 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("last_failed_s", "return_s", "ok"),
    [(None, 3.0, True), (5.4, 3.0, True), (5.6, 3.0, False), (2.0, None, False)],
)
def test_when_an_outage_went_well(
    last_failed_s: float | None, return_s: float | None, ok: bool
) -> None:
    fate = demo_outage.VisitSummary("www", 100, 10, last_failed_s, return_s, ())
    assert demo_outage.Outage("isp-a", 3, 7.0, fate, fate, ()).ok is ok
