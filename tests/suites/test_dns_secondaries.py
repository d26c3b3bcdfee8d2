"""BIND, Knot and NSD as secondaries of the daemon: the same zone, and the same answers.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host: ifdefault run
  │        │    └─ isp-b ── wan1 ┘
  │        └ BIND, Knot, NSD: by address
  └ BIND, Knot, NSD: by TSIG

A query of ours is answered by all seven. What differs is in ALLOWED, with a reason, or a fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dns.query
import dns.rdatatype
import dns.zone
import pytest

from ifdefault.lab import faults
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import secondaries
from tests.net.conftest import LabWorld
from tests.net.dns_cases import ZONE, A
from tests.net.secondaries import KEY
from tests.net.test_dns_daemon import serve
from tests.suites import dns_answers, dns_queries
from tests.suites.dns_answers import Allowed, Difference

START = {"BIND": secondaries.bind, "Knot": secondaries.knot, "NSD": secondaries.nsd}
SIGNED = {"BIND": "198.18.1.11", "Knot": "198.18.2.10", "NSD": "198.18.2.11"}  # the client's
BY_ADDRESS = {"BIND": "198.18.0.61", "Knot": "198.18.0.62", "NSD": "198.18.0.63"}  # the core's
OURS = "ours"


def config(key: Path) -> str:
    names: dict[str, list[str]] = {
        ZONE: [
            'TXT "hello"',
            'CAA 0 issue "ca.example"',
            "HTTPS 1 . alpn=h3,h2",
            f"MX 10 mail.{ZONE}",
            "MX 20 mx.example.net",
        ],
        f"mail.{ZONE}": ['TXT "v=spf1 a -all"'],
        f"alias.{ZONE}": [f"CNAME {ZONE}"],
        f"chain.{ZONE}": [f"CNAME alias.{ZONE}"],
        f"out.{ZONE}": ["CNAME www.example.net"],
        f"void.{ZONE}": [f"CNAME b.ent.{ZONE}"],
        f"towild.{ZONE}": [f"CNAME x.wild.{ZONE}"],
        f"*.aliases.{ZONE}": [f"CNAME {ZONE}"],
        f"a.b.ent.{ZONE}": [],
        f"*.wild.{ZONE}": ['TXT "wild"'],
        f"own.wild.{ZONE}": [],
        f"_sip._tcp.{ZONE}": [f"SRV 0 0 5060 mail.{ZONE}"],
        f"odd.{ZONE}": [r"TYPE65280 \# 4 01020304"],
        f"half.{ZONE}": [f'TXT "{n:0200}"' for n in range(4)],
        f"long.{ZONE}": [f'TXT "{n:0200}"' for n in range(12)],
    }
    without = ("CNAME", "SRV", "TYPE")  # addresses
    tables = []
    for name, records in names.items():
        lines = [f"name = '{name}'", f"records = {json.dumps(records)}"]
        if records and records[0].startswith(without):
            lines.append("uplinks = []")
        tables.append("\n".join(["[[dns.name]]", *lines, ""]))
    listed = [f"{{ address = '{it}', key = '{key}' }}" for it in SIGNED.values()]
    listed += [f"'{it}'" for it in BY_ADDRESS.values()]
    return f"""\
{"".join(tables)}
[dns.server]
zones = ["{ZONE}"]
nameservers = ["ns.example.net"]
secondaries = [{", ".join(listed)}]
rate_limit = 0
"""


@pytest.fixture
def served(lab_world: LabWorld) -> Iterator[World]:
    """A world where the daemon serves the zone, and all six follow."""
    world = lab_world("two")
    with secondaries.key_file() as key:
        serve(world, config(key))
        for address in BY_ADDRESS.values():
            world["core"].ip(f"address add {address}/16 dev net0\n")
        for name, start in START.items():
            start(world["client"], SIGNED[name], KEY)
            start(world["core"], BY_ADDRESS[name], None)
        yield world


def test_they_follow_and_answer_alike(served: World) -> None:
    """After the first transfer; while an uplink is dead; and when it is back."""
    world = served
    await_the_same_zone(world)
    check_by_others(world)
    compare_answers(world)
    with faults.injected(world, "blackhole", "isp-b"):
        eventually(lambda: "198.51.100.10" not in zone_of(world, A)[f"{ZONE}. A"], what="withdrawn")
        await_the_same_zone(world)
    eventually(lambda: "198.51.100.10" in zone_of(world, A)[f"{ZONE}. A"], what="back")
    await_the_same_zone(world)
    compare_answers(world)


# --- zones ----------------------------------------------------------------------------------


def await_the_same_zone(world: World) -> None:
    """Each secondary has what we have, record by record."""
    for address in (*SIGNED.values(), *BY_ADDRESS.values()):
        eventually(partial(_same, world, address), what=f"{address} has our zone", poll_s=0.1)


def _same(world: World, address: str) -> bool:
    return zone_of(world, A) == zone_of(world, address)


def zone_of(world: World, address: str) -> dict[str, str]:
    """The records of a server's zone, by name and type; empty while it has none."""
    zone = transfer(world, address)
    return {
        f"{name} {dns.rdatatype.to_text(rdataset.rdtype)}": (
            f"{rdataset.ttl} {', '.join(sorted(map(str, rdataset)))}"
        )
        for name, rdataset in (zone.iterate_rdatasets() if zone else ())
    }


def transfer(world: World, address: str) -> dns.zone.Zone | None:
    source = BY_ADDRESS["BIND"]  # it may transfer ours

    def ask() -> dns.zone.Zone | None:
        messages = dns.query.xfr(address, ZONE, relativize=False, timeout=20.0, source=source)
        try:
            return dns.zone.from_xfr(messages, relativize=False)
        except (dns.query.TransferError, OSError):
            return None

    return world["core"].python(ask)


def check_by_others(world: World) -> None:
    """The tools that BIND and Knot have for zone files find no fault either."""
    zone = transfer(world, A)
    assert zone
    path = world.dir / "transferred"
    zone.to_file(str(path), relativize=False)
    strict = [word for option in "kmMnrS" for word in (f"-{option}", "fail")]
    for command in (["named-checkzone", "-i", "local", *strict], ["kzonecheck", "-o"]):
        world["client"].run([*command, ZONE, str(path)])


# --- answers --------------------------------------------------------------------------------

ALLOWED = (
    # --- what each may choose ---
    Allowed(
        "* MX; SRV of a service",
        "Knot",
        "additional",
        "addresses of what a record names are optional (RFC 1034, 3.7); we give those of NS alone",
    ),
    Allowed(
        "*type ANY",
        "BIND Knot NSD",
        "answer flags authority",
        "one HINFO in place of all records (RFC 8482, 4.2); by TCP if it is longer than the query",
    ),
    Allowed(
        "type RRSIG",
        "BIND Knot NSD",
        "flags authority",
        "by TCP where the response may amplify forged queries, as for ANY",
    ),
    Allowed(
        "without EDNS: *",
        "BIND",
        "answer",
        "a truncated response has what fits; nobody may use it (RFC 2181, 9)",
    ),
    Allowed("mixed case, A", "BIND", "answer", "the owner as in the zone; others: as in the query"),
    Allowed(
        "version.bind; id.server",
        "BIND Knot NSD",
        "rcode flags answer",
        "they tell which program and which host they are; ours has no class CH",
    ),
    Allowed(
        "flag CD; all flags but QR",
        "Knot NSD",
        "flags",
        "they clear CD, BIND and ours copy it (RFC 4035, 3.2.2)",
    ),
    # --- EDNS options that we don't have, which is to ignore them (RFC 6891, 6.1.2) ---
    Allowed("a client's network", "BIND", "options", "its scope is always 0"),
    Allowed("expire", "BIND Knot", "options", "of use between secondaries (RFC 7314, 2)"),
    Allowed("keepalive", "BIND", "options", "optional (RFC 7828, 3.3.2)"),
    Allowed("DO: www.example.net", "Knot NSD", "options", "an extended error beside REFUSED"),
    Allowed(
        "a cookie; an unknown server's cookie",
        "Knot",
        "rcode flags answer",
        "BADCOOKIE may be sent, or not (RFC 7873, 5.2.3)",
    ),
    # --- queries that aren't in order: all that matters is that no answer is harmful ---
    Allowed(
        "type OPT; type TSIG; type TKEY; type TYPE128; type MAILA; type MAILB",
        "Knot NSD",
        "rcode flags authority",
        "types of queries alone; ours and BIND's answer is an error",
    ),
    Allowed("type TYPE0", "Knot", "rcode flags authority", "reserved (RFC 6895, 3.1)"),
    Allowed(
        "AXFR by UDP", "Knot NSD", "rcode", "not defined (RFC 5936, 4.2); ours and BIND's: FORMERR"
    ),
    Allowed(
        "IXFR by UDP",
        "NSD",
        "rcode flags question edns",
        "without an SOA; NSD's answer is malformed",
    ),
    Allowed("class NONE; class ANY; class CLASS77", "BIND", "rcode", "FORMERR and NOTIMP"),
    Allowed("class ANY", "Knot NSD", "rcode answer", "they answer with class IN"),
    Allowed("class ANY", "Knot", "flags", "and authoritatively"),
    Allowed(
        "class CLASS77; class HS; class NONE", "NSD", "question", "an error without a question"
    ),
    Allowed(
        "flag rcode 15; an additional record", "NSD", "rcode flags question answer", "an error"
    ),
    Allowed(
        "an answer in the query; an authority in the query",
        "BIND Knot",
        "rcode flags answer",
        "ignored by them, an error for NSD and ours",
    ),
    Allowed(
        "a trailing byte; trailing text",
        "BIND NSD",
        "rcode flags answer",
        "ignored by them, an error for Knot and ours",
    ),
    Allowed("OPT with an owner", "Knot", "rcode flags answer", "an error for all others"),
    Allowed("no question, with EDNS", "NSD", "rcode", "NOERROR"),
    Allowed(
        "a header alone; cut in the *; two questions*; a pointer *; a label of t*; a name of 256 *",
        "Knot",
        "rcode flags edns",
        "it is silent where others say FORMERR",
    ),
    Allowed(
        "a cookie of *; an a* in *; an additional *; * OPT; OPT *; an option cut; a key that *",
        "NSD",
        "question",
        "an error without a question",
    ),
    # --- other operations than queries ---
    Allowed("opcode *", "Knot", "question", "NOTIMP with the question"),
    Allowed(
        "NOTIFY of a stranger; UPDATE of a stranger",
        "BIND Knot",
        "rcode question",
        "REFUSED or NOTAUTH: they take such ones from others; we take none, and say NOTIMP",
    ),
    Allowed("NOTIFY of a stranger", "NSD", "rcode", "the same"),
    # --- OPT in errors, where the query has one (RFC 6891, 6.1.1) ---
    Allowed("a cookie of *; opcode 15 with EDNS", "NSD", "edns", "it leaves it out"),
    Allowed("two OPT; OPT in *; an option cut", "BIND Knot NSD", "edns", "they don't see it"),
    Allowed("OPT with an owner", "BIND NSD", "edns", "the same"),
)


def compare_answers(world: World) -> None:
    found = [*all_differences(world["client"])]
    allowed = [each for rule in ALLOWED for each in rule.uses(found)]
    wrong = [str(each) for each in found if each not in allowed]
    assert not wrong, "\n".join(wrong)


def all_differences(client: Node) -> Iterator[Difference]:
    asked = [*dns_queries.queries()]
    servers = {OURS: A, **SIGNED}
    for transport in ("udp", "tcp"):
        some = [query for query in asked if query.tcp or transport == "udp"]
        answers = client.python(partial(dns_answers.exchange, some, servers, transport))
        yield from dns_answers.differences(some, answers, OURS, transport)
