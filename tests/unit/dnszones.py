"""A zone with everything that the embedded server knows, and asking about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dns.edns
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype

from ifdefault.dns.answer import Responder
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.table import Table
from ifdefault.model.dns import AddressRecord, Policy, Published, Record, Zone

ZONE = "www.example.net"
CLIENT = "192.0.2.7"
SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
A4, B4, C4 = "203.0.113.10", "198.51.100.10", "192.0.2.10"
A6, B6 = "2001:db8:a::10", "2001:db8:b::10"
BOTH = (
    AddressRecord("isp-a", A4),
    AddressRecord("isp-b", B4),
    AddressRecord("isp-a", A6),
    AddressRecord("isp-b", B6),
)
WEIGHTED = tuple(replace(each, weight=3 if each.uplink == "isp-a" else 1) for each in BOTH)
NSID, COOKIE = 3, 10


def record(kind: str, text: str) -> Record:
    rdata = dns.rdata.from_text("IN", kind, text).to_wire()
    assert rdata is not None
    return Record(int(dns.rdatatype.from_text(kind)), rdata, text)


def published(
    label: str,
    policy: Policy = "rotate",
    addresses: Sequence[AddressRecord] = (),
    records: Sequence[tuple[str, str]] = (),
    ttl: int = 30,
) -> Published:
    name = f"{label}.{ZONE}" if label else ZONE
    static = tuple(record(*each) for each in records)
    return Published(name, policy, ttl, tuple(addresses), static)


def zone(*names: Published, serial: int = 7) -> Zone:
    servers = tuple(f"{label}.{ZONE}" for label in ("ns1", "ns2"))
    return Zone(ZONE, serial, f"hostmaster.{ZONE}", servers, names)


NAMES = (
    published("", "rotate", BOTH, (("HTTPS", "1 . alpn=h2,h3"), ("CAA", '0 issue "ca.example"'))),
    published("ns1", addresses=BOTH[::2], ttl=3600),
    published("ns2", addresses=BOTH[1::2], ttl=3600),
    published("weighted", "weighted", WEIGHTED, (("HTTPS", "1 ."),)),
    published("failover", "failover", BOTH),
    published("arrival", "arrival", BOTH, (("SVCB", "1 . port=8443"),)),
    published("only", "arrival-only", (*BOTH[:3],)),
    published("alias", records=[("CNAME", f"weighted.{ZONE}.")]),
    published("away", records=[("CNAME", "cdn.example.com.")]),
    published("dangling", records=[("CNAME", f"nothing.{ZONE}.")]),
    published("loop", records=[("CNAME", f"pool.{ZONE}.")]),
    published("pool", records=[("CNAME", f"loop.{ZONE}.")]),
    published("*.wild", addresses=BOTH, records=[("TXT", '"any"')]),
    published("own.wild", records=[("TXT", '"own"')]),
    published("b.empty", records=[("TXT", '"below"')]),
    published("long", records=[("TXT", f'"{"x" * 200} {n}"') for n in range(9)]),
)


def responder(*names: Published, limiter: Limiter | None = None, serial: int = 7) -> Responder:
    table = Table.build([zone(*(names or NAMES), serial=serial)])
    return Responder(table, secrets=[SECRET], limiter=limiter)


def option(code: int, value: bytes = b"") -> dns.edns.Option:
    return dns.edns.GenericOption(dns.edns.OptionType.make(code), value)


def query(name: str, kind: str = "A", **options: Any) -> dns.message.Message:
    options.setdefault("id", 4711)  # tests are known by their parameters
    return dns.message.make_query(dns.name.from_text(name), kind, **options)


def asking(label: str, kind: str = "A", **options: Any) -> dns.message.Message:
    """A query for a name in the zone."""
    return query(f"{label}.{ZONE}" if label else ZONE, kind, **options)


def ask(
    server: Responder,
    asked: dns.message.Message | bytes,
    uplink: str = "isp-a",
    client: str = CLIENT,
    now: float = 0.0,
) -> dns.message.Message:
    """The response, which answers to the query."""
    wire = asked if isinstance(asked, bytes) else asked.to_wire()
    response = server.udp(wire, client, uplink, now)
    assert response is not None
    read = dns.message.from_wire(response)
    if not isinstance(asked, bytes):
        assert asked.is_response(read)
    return read


def texts(section: Sequence[Any], kind: str = "") -> list[str]:
    """The data of a section's records, in their order."""
    return [
        rdata.to_text()
        for rrset in section
        for rdata in rrset
        if kind in ("", dns.rdatatype.to_text(rrset.rdtype))
    ]
