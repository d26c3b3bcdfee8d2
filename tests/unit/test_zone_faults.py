"""Faulty and right zones, judged by the config, by named-checkzone and by kzonecheck.

What either of them complains about, the config names; what it accepts, they accept. It names more:
CNAMEs that loop or lead to nothing, which gdnsd refuses as well.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

import dns.rdata
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifdefault import config
from ifdefault.config.cross_zone import host_name_warnings
from ifdefault.dns import wire
from ifdefault.dns.publish import publish, serve
from ifdefault.dns.table import Table
from ifdefault.model.dns import CandidateAddresses, DnsConfig
from ifdefault.model.errors import ConfigError
from ifdefault.model.health import Decision
from tests.unit.uplinks import UPLINKS

Z = "zone.example"
OFFERS = (
    CandidateAddresses("isp-a", 1, ("203.0.113.10", "2001:db8:a::10")),
    CandidateAddresses("isp-b", 1, ("198.51.100.77",)),
)


@dataclass(frozen=True)
class Case:
    """Names with their records; one that ends in "!" has no addresses of uplinks."""

    names: dict[str, list[str]]
    nameservers: tuple[str, ...] = ()

    def toml(self) -> str:
        lines = [UPLINKS]
        for name, records in self.names.items():
            lines += ["[[dns.name]]", f'name = "{full(name)}"']
            lines += ["uplinks = []"] * name.endswith("!")
            lines.append(f"records = {json.dumps(records)}")
        servers = ", ".join(f'"{server}"' for server in self.nameservers)
        lines += ["[dns.server]", f'zones = ["{Z}"]', f"nameservers = [{servers}]"]
        return "\n".join(lines)

    def zone_file(self) -> str:
        lines = [f"{Z}. 300 SOA ns-isp-a.{Z}. hostmaster.{Z}. 1 300 60 604800 30"]
        lines += [f"{Z}. 300 NS {server}." for server in (f"ns-isp-a.{Z}", *self.nameservers)]
        lines.append(f"ns-isp-a.{Z}. 300 A 203.0.113.10")
        for name, records in self.names.items():
            lines += [f"{full(name)}. 300 A 203.0.113.10"] * (not name.endswith("!"))
            lines += [f"{full(name)}. 300 {record}" for record in records]
        return "\n".join([*lines, ""])


def full(name: str) -> str:
    name = name.removesuffix("!")
    return f"{name}.{Z}" if name else Z


def ours(case: Case) -> list[str]:
    """What the config finds wrong."""
    try:
        parsed = config.parse(case.toml(), "f")
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in host_name_warnings(parsed.dns)]


def complaints(zone_file: str) -> list[str]:
    """What the two programs find wrong."""
    found = []
    with tempfile.NamedTemporaryFile("w", suffix=".zone") as file:
        file.write(zone_file)
        file.flush()
        commands = [["named-checkzone", "-i", "local", Z, file.name]]
        if shutil.which("kzonecheck"):
            commands.append(["kzonecheck", "-v", "-o", Z, file.name])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = (done.stdout + done.stderr).splitlines()
            found += [line for line in lines if line.strip() and not _FINE.search(line)]
    return found


_FINE = re.compile(r"loaded serial|^OK$|No semantic error|^Error summary|Serious semantic")

# what, names with records, further name servers, what the config says ("": nothing is wrong)
CASES: list[tuple[str, dict[str, list[str]], tuple[str, ...], str]] = [
    (
        "all is well",
        {"": ["MX 10 www.zone.example."], "www": [], "a!": [f"CNAME www.{Z}."]},
        (),
        "",
    ),
    ("MX elsewhere", {"": ["MX 10 mail.example.org."]}, (), ""),
    ("MX by a wildcard", {"": [f"MX 10 a.w.{Z}."], "*.w": []}, (), ""),
    ("no mail", {"": ["MX 0 ."]}, (), ""),
    (
        "MX at a CNAME",
        {"": [f"MX 10 a.{Z}."], "www": [], "a!": [f"CNAME www.{Z}."]},
        (),
        f"a.{Z} is a CNAME, where an MX needs a host; use its target, www.{Z}",
    ),
    (
        "MX at a CNAME that leads elsewhere",
        {"": [f"MX 10 a.{Z}."], "a!": ["CNAME mail.example.org."]},
        (),
        f"a.{Z} is a CNAME, where an MX needs a host; use its target, mail.example.org",
    ),
    (
        "MX at CNAMEs of each other",
        {"": [f"MX 10 a.{Z}."], "a!": [f"CNAME b.{Z}."], "b!": [f"CNAME a.{Z}."]},
        (),
        f"a.{Z} is a CNAME, where an MX needs a host; use a name that has addresses",
    ),
    (
        "MX at nothing",
        {"": [f"MX 10 gone.{Z}."]},
        (),
        f"gone.{Z} doesn't exist in the zone; add [[dns.name]] with name",
    ),
    (
        "MX where a wildcard doesn't reach",
        {"": [f"MX 10 b.a.w.{Z}."], "*.w": [], "a.w!": ['TXT "x"']},
        (),
        f"b.a.w.{Z} doesn't exist in the zone",
    ),
    ("MX without address", {"": [f"MX 10 t.{Z}."], "t!": ["TXT x"]}, (), f"t.{Z} has no address"),
    ("MX at an empty name", {"": [f"MX 10 b.{Z}."], "a.b": []}, (), f"b.{Z} has no address"),
    ("MX at an address", {"": ["MX 10 192.0.2.1."]}, (), "192.0.2.1 is an address; use the name"),
    ("MX at an IPv6 address", {"": ["MX 10 2001:db8::1."]}, (), "2001:db8::1 is an address"),
    (
        "MX at an underscore",
        {"": ["MX 10 m_x.example.org."]},
        (),
        "m_x.example.org has an underscore, which host names must not have",
    ),
    ("SRV", {"": [], "_a._tcp!": [f"SRV 0 0 1 {Z}.", "SRV 0 0 1 ."]}, (), ""),
    (
        "SRV at a CNAME",
        {"": [], "_a._tcp!": [f"SRV 0 0 1 a.{Z}."], "a!": [f"CNAME {Z}."]},
        (),
        f"a.{Z} is a CNAME, where an SRV needs a host",
    ),
    ("SRV at nothing", {"_a._tcp!": [f"SRV 0 0 1 gone.{Z}."]}, (), f"gone.{Z} doesn't exist"),
    ("SRV at an address", {"_a._tcp!": ["SRV 0 0 1 192.0.2.1."]}, (), "192.0.2.1 is an address"),
    ("NS", {"ns": []}, (f"ns.{Z}", "ns.example.org"), ""),
    (
        "NS at a CNAME",
        {"www": [], "ns!": [f"CNAME www.{Z}."]},
        (f"ns.{Z}",),
        f"ns.{Z} is a CNAME, where a name server needs a host",
    ),
    ("NS at nothing", {}, (f"ns.{Z}",), f'"ns.{Z}" is in the zone and has no address'),
    ("NS without address", {"ns!": ["TXT x"]}, (f"ns.{Z}",), f"ns.{Z} has no address"),
    ("NS at an address", {}, ("192.0.2.1",), '"192.0.2.1" is not a domain name'),
    ("NS with an underscore", {}, ("n_s.example.org",), "n_s.example.org has an underscore"),
    ("a CNAME of itself", {"a!": [f"CNAME a.{Z}."]}, (), f"a.{Z} leads back to itself"),
    (
        "CNAMEs of each other",
        {"a!": [f"CNAME b.{Z}."], "b!": [f"CNAME a.{Z}."]},
        (),
        f"b.{Z} leads back to itself; use a name that has addresses",
    ),
    ("a wildcard of itself", {"*.w!": [f"CNAME a.w.{Z}."]}, (), f"a.w.{Z} leads back to itself"),
    ("a CNAME to nothing", {"a!": [f"CNAME gone.{Z}."]}, (), f"gone.{Z} doesn't exist in the zone"),
    (
        "CNAMEs to nothing",
        {"a!": [f"CNAME b.{Z}."], "b!": [f"CNAME c.{Z}."]},
        (),
        f"c.{Z} doesn't exist in the zone",
    ),
    (
        "a long chain",
        {"www": [], "c0!": [f"CNAME www.{Z}."]}
        | {f"c{n}!": [f"CNAME c{n - 1}.{Z}."] for n in range(1, 12)},
        (),
        "is a chain of more than 8 CNAMEs",
    ),
    (
        "CNAME and data",
        {"a!": ["CNAME b.example.", "TXT x"]},
        (),
        "a CNAME can't have other records",
    ),
    ("CNAME and addresses", {"a": ["CNAME b.example."]}, (), "a CNAME can't have addresses"),
    (
        "two CNAMEs",
        {"a!": ["CNAME b.example.", "CNAME c.example."]},
        (),
        "a CNAME can't have other",
    ),
    ("CNAME at the apex", {"!": ["CNAME b.example."]}, (), "a CNAME at the apex of a zone"),
    ("PTR to nothing", {"a!": [f"PTR gone.{Z}."]}, (), f"gone.{Z} doesn't exist in the zone"),
    ("HTTPS to nothing", {"": [f"HTTPS 1 gone.{Z}."]}, (), f"gone.{Z} doesn't exist in the zone"),
    ("HTTPS", {"": ["HTTPS 1 . alpn=h2"], "b!": [f"HTTPS 0 {Z}."]}, (), ""),
    ("HTTPS, mandatory", {"": ["HTTPS 1 . mandatory=alpn"]}, (), "mandatory"),
    ("HTTPS, no ALPN", {"": ["HTTPS 1 . no-default-alpn"]}, (), "no-default-alpn"),
    ("address at an underscore", {"_a": []}, (), f"_a.{Z} has an underscore, which host"),
    ("mail at an underscore", {"_a!": ["MX 1 a.example."]}, (), f"_a.{Z} has an underscore"),
    ("text at an underscore", {"_dmarc!": ['TXT "v=DMARC1; p=none"']}, (), ""),
    ("an inner wildcard", {"a.*.b": []}, (), "is not a domain name"),
    ("a hyphen at the end", {"a-": []}, (), "is not a domain name"),
    ("a long label", {"a" * 64: []}, (), "is not a domain name"),
    ("a long name", {".".join(["a" * 63] * 4): []}, (), "is not a domain name"),
    ("a long text", {"": [f'TXT "{"a" * 256}"']}, (), "TXT"),
    ("an incomplete record", {"": ["CAA 0 issue"]}, (), "CAA"),
    ("a wrong fingerprint", {"": ["SSHFP 1 1 00"]}, (), "SSHFP"),
    ("data below a DNAME", {"d!": ["DNAME b.example."], "a.d": []}, (), "DNAME records aren't"),
    ("a wildcard NS", {"*.b!": ["NS a.example."]}, (), "NS records aren't allowed here"),
    ("two SOAs", {"!": ["SOA a.example. b.example. 1 1 1 1 1"]}, (), "SOA records aren't"),
    ("SPF without TXT", {"": ['SPF "v=spf1 -all"']}, (), "SPF"),
]


@pytest.mark.parametrize(
    ("names", "nameservers", "message"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_zone(names: dict[str, list[str]], nameservers: tuple[str, ...], message: str) -> None:
    case = Case(names, nameservers)
    found = ours(case)
    assert any(message in line for line in found) if message else found == []
    judged = complaints(case.zone_file())
    assert found or not judged, judged


# --- random zones -------------------------------------------------------------------------

LABELS = ["", "a", "b", "a.b", "*.b", "*.a", "_t", "x.b"]
TARGETS = [full(label) for label in ("", "a", "b", "a.b", "c.b", "q.a", "gone", "_t")] + [
    "o.example"
]
RECORDS = st.builds(
    str.format,
    st.sampled_from(
        ["CNAME {}.", "MX 10 {}.", "SRV 0 0 1 {}.", "TXT {}", "PTR {}.", "HTTPS 1 {}."]
    ),
    st.sampled_from(TARGETS),
)
NAMES = st.dictionaries(
    st.tuples(st.sampled_from(LABELS), st.booleans()).map(lambda n: n[0] + "!" * n[1]),
    st.lists(RECORDS, max_size=2, unique=True),
    max_size=5,
)
CASE = st.builds(Case, NAMES, st.lists(st.sampled_from(TARGETS), max_size=1).map(tuple))
_NAMED = re.compile(r"(?:MX|SRV|NS) '(\S+)'")


def is_sensible(case: Case) -> bool:
    """Whether each name is there once, and has something."""
    names = [name.removesuffix("!") for name in case.names]
    empty = any(name.endswith("!") and not records for name, records in case.names.items())
    return len(names) == len(set(names)) and not empty


@settings(max_examples=60, deadline=None)
@given(CASE.filter(is_sensible))
def test_random_zones(case: Case) -> None:
    found, judged = ours(case), complaints(case.zone_file())
    assert found or not judged, judged
    alias = any("CNAME can't" in line or "CNAME at" in line for line in found)
    for target in {match[1] for line in judged if not alias and (match := _NAMED.search(line))}:
        assert any(target in line for line in found), (target, found)
    if not found:
        assert complaints(as_served(config.parse(case.toml(), "f").dns)) == []


def as_served(parsed: DnsConfig) -> str:
    """The zone of the embedded server, as a zone file."""
    published = publish(parsed, OFFERS, Decision(), ())
    [zone] = serve(parsed, published, OFFERS)
    lines = []
    for node in Table.build([zone]).nodes.values():
        owner = wire.decode_name(node.name, 0)[0]
        for rrset in node.sets.values():
            kind = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rrset.kind))
            for rdata in rrset.all:
                text = dns.rdata.from_wire("IN", kind, rdata, 0, len(rdata)).to_text()
                lines.append(f"{owner}. {rrset.ttl} IN {kind} {text}")
    lines.sort(key=lambda line: " SOA " not in line)
    return "\n".join([*lines, ""])


def test_all_faults_in_one_run() -> None:
    """An invalid record hides no other, and makes nothing seem to be missing."""
    case = Case(
        {
            "": ["MX 30 192.0.2.1.", f"MX 10 a.{Z}.", f"MX 20 gone.{Z}.", f"MX 40 only.{Z}."],
            "a!": [f"CNAME {Z}."],
            "only!": ["A 203.0.113.300"],
        }
    )
    assert [line.split("; ")[0].removeprefix("f:") for line in ours(case)] == [
        '10: dns.name[0].records[0]: "MX 30 192.0.2.1.": 192.0.2.1 is an address',
        f"10: dns.name[0].records[1]: a.{Z} is a CNAME, where an MX needs a host",
        f"10: dns.name[0].records[2]: gone.{Z} doesn't exist in the zone",
        '18: dns.name[2].records[0]: "A 203.0.113.300": text input is malformed',
    ]


@pytest.mark.parametrize("kind", ["update", "provider"])
def test_a_zone_inside_another_that_delegates_nothing(kind: str) -> None:
    more = {"update": 'servers = ["192.0.2.1"]', "provider": 'provider = "x"\ncredentials = "/k"'}
    text = f'{UPLINKS}[dns.server]\nzones = ["{Z}"]\n[[dns.{kind}]]\nzone = "sub.{Z}"\n{more[kind]}'
    with pytest.raises(ConfigError) as raised:
        config.parse(text, "f")
    [problem] = raised.value.problems
    assert problem.what == f'"sub.{Z}" is inside "{Z}" of [dns.server], which delegates nothing'
