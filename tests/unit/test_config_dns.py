"""The DNS in the config file: what it means, and what is refused, each with line and remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from copy import deepcopy
from functools import reduce
from operator import getitem
from typing import Any

import dns.name
import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from ifdefault import config
from ifdefault.config.dns import DISCOVER_EXAMPLE
from ifdefault.config.dns_records import record as parse_record
from ifdefault.dns.publish import nameserver
from ifdefault.model.dns import (
    DnsConfig,
    Endpoint,
    ExecConfig,
    NameConfig,
    ProviderConfig,
    Record,
    ServerConfig,
    UpdateConfig,
)
from ifdefault.model.errors import ConfigError
from tests.unit.uplinks import UPLINKS

ANY = '[[dns.exec]]\nprogram = "/p"\n'  # takes every name
ZONE = '[dns.server]\nzones = ["example.net"]\n'
NAME = '[[dns.name]]\nname = "www.example.net"\n'


def parsed(text: str) -> DnsConfig:
    return config.parse(UPLINKS + text, "f.toml").dns


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        config.parse(UPLINKS + text, "f.toml")
    return [str(problem) for problem in raised.value.problems]


def record(text: str) -> Record:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return parsed(f'{ZONE}{NAME}records = ["{quoted}"]').names[0].records[0]


# --- what is right -------------------------------------------------------------------------


def test_no_dns() -> None:
    assert parsed("") == parsed("[dns]") == parsed("[dns]\ndiscover = []") == DnsConfig()


def test_every_key() -> None:
    text = """
        [dns]
        discover = ["DNS://208.67.222.222/MyIP.opendns.com.", "https://ip.example.net"]
        [[dns.name]]
        name = "WWW.Example.Net."
        policy = "weighted"
        ttl = 5
        uplinks = ["isp-b"]
        records = ["mx 10 Mail.Example.Org"]
        [[dns.name]]
        name = "*.www.example.net"
        [[dns.name]]
        name = "_dmarc.www.example.net"
        uplinks = []
        records = ['TXT "v=DMARC1; p=none"']
        [dns.server]
        zones = ["www.example.net."]
        contact = "Host-Master@example.net"
        nameservers = ["NS.other.example"]
        secondaries = ["192.0.2.53", { address = "2001:DB8::54", port = 5353, key = "/k/x" }]
        port = 5300
        rate_limit = 0
        [[dns.update]]
        zone = "example.net"
        servers = [
            "127.0.0.1",
            { address = "192.0.2.53", port = 54 },
            { address = "::1", key = "/k/own" },
        ]
        key = "/k/all"
        [[dns.update]]
        zone = "example.com"
        servers = ["192.0.2.53"]
        [[dns.provider]]
        zone = "example.org"
        provider = "powerdns"
        credentials = "/k/powerdns.toml"
        timeout_s = 10
        [[dns.exec]]
        program = "/usr/local/sbin/publish"
        zone = "Example.NET"
        timeout_s = 0.5
    """
    assert parsed(text) == DnsConfig(
        (
            NameConfig(
                "www.example.net",
                "weighted",
                5,
                ("isp-b",),
                (Record(15, b"\0\x0a\4mail\7example\3org\0", "MX 10 mail.example.org."),),
            ),
            NameConfig("*.www.example.net"),
            NameConfig(
                "_dmarc.www.example.net",
                uplinks=(),
                records=(Record(16, b"\x10v=DMARC1; p=none", 'TXT "v=DMARC1; p=none"'),),
            ),
        ),
        ServerConfig(
            ("www.example.net",),
            5300,
            "host-master.example.net",
            ("ns.other.example",),
            (Endpoint("192.0.2.53"), Endpoint("2001:db8::54", 5353, "/k/x")),
            0,
        ),
        (
            UpdateConfig(
                "example.net",
                (
                    Endpoint("127.0.0.1", 53, "/k/all"),
                    Endpoint("192.0.2.53", 54, "/k/all"),
                    Endpoint("::1", 53, "/k/own"),
                ),
            ),
            UpdateConfig("example.com", (Endpoint("192.0.2.53"),)),
        ),
        (ProviderConfig("example.org", "powerdns", "/k/powerdns.toml", 10.0),),
        (ExecConfig("/usr/local/sbin/publish", "example.net", 0.5),),
        ("dns://208.67.222.222/myip.opendns.com", "https://ip.example.net/"),
    )


def test_no_uplinks_are_not_the_same_as_none_told() -> None:
    alias = '[[dns.name]]\nname = "a.example.net"\nuplinks = []\nrecords = ["CNAME b.example"]'
    names = parsed(ZONE + NAME + alias).names
    assert [name.uplinks for name in names] == [None, ()]


@pytest.mark.parametrize(
    ("written", "public"),
    [
        ('"discover"', ("discover",)),
        ('["discover"]', ("discover",)),
        ('["198.51.100.77", "2001:DB8::1"]', ("198.51.100.77", "2001:db8::1")),
        ("[]", ()),
    ],
)
def test_public(written: str, public: tuple[str, ...]) -> None:
    text = f'[uplink.c]\ninterface = "wan2"\npublic = {written}\n[dns]\n'
    text += f'discover = ["{DISCOVER_EXAMPLE}"]'
    assert config.parse(text, "f").uplinks[0].public == public


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('caa 0 issue "letsencrypt.org"', 'CAA 0 issue "letsencrypt.org"'),
        ("HTTPS 1 . alpn=h3,h2", 'HTTPS 1 . alpn="h3,h2"'),
        ("HTTPS 1 cdn.example ipv4hint=192.0.2.1", 'HTTPS 1 cdn.example. ipv4hint="192.0.2.1"'),
        ("HTTPS 1 . ipv4hint=203.0.113.10", 'HTTPS 1 . ipv4hint="203.0.113.10"'),
        ("  TXT  a   b ", 'TXT "a" "b"'),
        ('TXT "a@b; @ c"', 'TXT "a@b; @ c"'),
        ("SRV 0 0 443 A.example.NET.", "SRV 0 0 443 a.example.net."),
        ("MX 0 .", "MX 0 ."),
        ("TYPE65280 \\# 2 ABCD", "TYPE65280 \\# 2 abcd"),
        ("TYPE16 \\# 2 0141", 'TXT "A"'),
    ],
)
def test_records(written: str, kept: str) -> None:
    made = record(written)
    assert made.text == kept
    assert record(made.text) == made
    kind, _, data = kept.partition(" ")
    again = dns.rdata.from_text("IN", kind, data, dns.name.root, relativize=False)
    assert made.rdata == again.to_wire()
    assert made.type == again.rdtype


@pytest.mark.parametrize("address", ["203.0.113.10", "198.51.100.77", "2001:DB8:A::10"])
def test_an_address_of_an_uplink_as_a_record(address: str) -> None:
    kind = "AAAA" if ":" in address else "A"
    text = f'{ZONE}{NAME}uplinks = []\nrecords = ["{kind} {address}"]'
    [name] = parsed(text).names
    assert name.records[0].text == f"{kind} {address.lower()}"


def test_bounds_are_met() -> None:
    names = "".join(f'[[dns.name]]\nname = "n{n}.example.net"\n' for n in range(256))
    assert len(parsed(ANY + names).names) == 256
    records = ", ".join(f'"TXT {n:0>49}"' for n in range(64))
    assert len(parsed(f"{ZONE}{NAME}records = [{records}]").names[0].records) == 64
    text = f'{ZONE}{NAME}records = ["TYPE65280 \\\\# 3500 {"00" * 3500}"]'
    assert len(parsed(text).names[0].records[0].rdata) == 3500
    longest = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(parsed(f'{ANY}[[dns.name]]\nname = "{longest}"').names[0].name) == 253


def test_dnspython_is_loaded_for_records_alone() -> None:
    code = f"""
import sys
from ifdefault.config import parse
parse({UPLINKS + ZONE + NAME!r}, "f")
assert "dns" not in sys.modules
parse({UPLINKS + ZONE + NAME + 'records = ["TXT x"]'!r}, "f")
assert "dns" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what is wrong -------------------------------------------------------------------------


def test_all_errors_in_one_run_in_the_order_of_the_file() -> None:
    text = """\
[[dns.name]]
name = "www.example.com"
ttl = 0
uplinks = ["isp-c"]
records = ["AAAA 2001:db8::1"]
[[dns.name]]
name = "a..b"
records = ["CNAME"]
[[dns.name]]
nmae = "x"
[[dns.name]]
name = "www.example.net"
policy = "roundrobin"
[[dns.name]]
name = "www.example.net"
ttl = 86401
records = ["CNAME other.example.net",
           "TXT x"]
[dns.server]
zones = ["example.net"]
port = 0
[[dns.update]]
zone = "example.org"
servers = ["192.0.2.1"]
[[dns.update]]
zone = "example.org"
servers = ["192.0.2.1"]
"""
    assert errors(text) == [
        (
            'f.toml:8: dns.name[0].name: "www.example.com" is in no zone that is published, use a '
            "name in example.net or example.org, or add its zone: to zones of [dns.server], or "
            "with a table such as [[dns.update]]"
        ),
        (
            "f.toml:9: dns.name[0].ttl: a TTL of 0 has every visitor ask each time, use 1 or more, "
            "such as 30"
        ),
        'f.toml:10: dns.name[0].uplinks[0]: "isp-c" is no uplink, the nearest is isp-b',
        (
            "f.toml:11: dns.name[0].records[0]: 2001:db8::1 is an address that no uplink owns, "
            "drop it: a name gets its uplinks' addresses by itself; or name it in addresses or "
            "public of an uplink"
        ),
        'f.toml:13: dns.name[1].name: "a..b" is no name, write it like "www.example.net"',
        (
            'f.toml:14: dns.name[1].records[0]: "CNAME": expecting an identifier, write it like '
            '"CNAME www.example.org"'
        ),
        'f.toml:15: dns.name[2].name: missing, write it whole, as in name = "www.example.net"',
        "f.toml:16: dns.name[2].nmae: unknown key, the nearest is name",
        (
            'f.toml:19: dns.name[3].policy: "roundrobin" is no choice, use one of "rotate", '
            '"weighted", "failover", "arrival" or "arrival-only"'
        ),
        (
            'f.toml:21: dns.name[4].name: "www.example.net" is there already, keep one table with '
            "all its records"
        ),
        "f.toml:22: dns.name[4].ttl: 86401 is too much, use 86400 or less",
        (
            "f.toml:23: dns.name[4].records[0]: a CNAME beside other records, keep it or them "
            "(RFC 1034, 3.6.2)"
        ),
        (
            "f.toml:23: dns.name[4].records[0]: a CNAME beside addresses, drop it, or add "
            "uplinks = [] to have no addresses"
        ),
        "f.toml:27: dns.server.port: 0 is too small, use 1 or more",
        (
            'f.toml:32: dns.update[1].zone: "example.org" is there already, keep one table with '
            "all its servers"
        ),
    ]


def test_what_may_be_in_an_unsound_table_is_not_missed() -> None:
    """A zone, an uplink, an address, a discoverer or a name that was left out for another error."""
    text = f"""{NAME}uplinks = ["c"]\nrecords = ["A 192.0.2.9"]\n
[uplink.c]\ninterface = "wan3"\naddresses = ["192.0.2.9"]\nrank = -1\npublic = "discover"
[uplink.d]\ninterface = "wan4"\npublic = "discover"
[dns]\ndiscover = ["ftp://x"]
[dns.server]\nzones = ["example.net", "x..y"]\nnameservers = ["ns.example.net"]
[[dns.name]]\nname = "ns.example.net"\nttls = 3"""
    told = [problem.split(": ")[1] for problem in errors(text)]
    assert told == [
        "dns.name[0].records[0]",  # an address of uplink.c, but beside the others
        "uplink.c.rank",
        "dns.discover[0]",
        "dns.server.zones[1]",
        "dns.name[1].ttls",
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("name = 3", "name: not a text"),
        ("name = ''", '"" is no name, write it like "www.example.net"'),
        ("name = 'a b.example'", '"a b.example" is no name'),
        ("name = '*'", '"*" is no name'),
        ("name = 'a.*.example.net'", '"a.*.example.net" is no name'),
        ("name = '192.0.2.1'", '"192.0.2.1" is no name'),
        ("name = 'münchen.example'", "has foreign letters, write it as the DNS does, xn--…"),
        (f"name = '{'a.' * 127}a'", "is no name"),
        (f"name = '{'a' * 64}.example'", "is no name"),
        ("policy = 'best'", 'policy: "best" is no choice, use one of "rotate"'),
        ("ttl = 0", "ttl: a TTL of 0 has every visitor ask each time, use 1 or more, such as 30"),
        ("ttl = -1", "ttl: -1 is too small, use 1 or more"),
        ("ttl = false", "ttl: not a whole number"),
        ("ttl = '30'", "ttl: not a whole number"),
        ("uplinks = 'isp-a'", 'uplinks: not a list, write it in brackets: ["…"]'),
        ("uplinks = ['isp-a', 'isp-a']", '"isp-a" is named more than once, name it once'),
        ("uplinks = ['isp-c']", '"isp-c" is no uplink, the nearest is isp-'),
        ("uplinks = ['zzz']", '"zzz" is no uplink, use isp-a or isp-b'),
        ("uplinks = []", "uplinks: no uplink, and no record, name one, or drop uplinks to have"),
        ("upliks = []", "upliks: unknown key, the nearest is uplinks"),
        ("records = ['TXT x', 'TXT \"x\"']", "is there twice, drop one"),
        ("records = ['MX 1 a.b', 'MX 1 A.B.']", "is there twice, drop one"),
        ("records = [" + '"TXT x", ' * 65 + "]", "records: 65 of them, keep at most 64"),
        (
            f'records = ["TYPE9998 \\\\# 3 000000", "TYPE9999 \\\\# 3498 {"00" * 3498}"]',
            "records: 3501 bytes of data, keep at most 3500 a name",
        ),
        ("records = ['A 192.0.2.1']", "192.0.2.1 is an address that no uplink owns, drop it"),
        ("uplinks = []\nrecords = ['A 192.0.2.1']", "is an address that no uplink owns"),
        ("records = ['HTTPS 1 . ipv6hint=2001:db8::7']", "2001:db8::7 is an address that no"),
        (
            "records = ['A 203.0.113.10']",
            "an address beside those of the name's uplinks, drop it: a name gets its uplinks'",
        ),
        ("records = ['CNAME a.example.net']", "a CNAME beside addresses, drop it, or add uplinks"),
    ],
)
def test_name_keys(line: str, told: str) -> None:
    head = "[[dns.name]]\n" if line.startswith("name") else NAME
    [problem] = errors(f"{ZONE}{head}{line}")
    assert ": dns.name[0]." in problem
    assert told in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "nothing is no type of record"),
        ("CCA 0 issue x", '"CCA 0 issue x": CCA is no type of record, the nearest is CAA'),
        ("300 IN TXT x", "300 is no type of record, write it like"),
        ("TYPE99999 x", "TYPE99999 is no type of record"),
        ("TYPE0 \\# 0", "is a type of questions"),
        ("ANY", "ANY is a type of questions, name what there is"),
        ("OPT x", "OPT is a type of questions"),
        (
            "SOA a. b. 1 2 3 4 5",
            "SOA records aren't taken here, drop it: a zone of [dns.server] has",
        ),
        ("type2 ns.example.net", "NS records aren't taken here"),
        ("DS 1 8 2 AA", "DS records aren't taken here, drop it: what is published here isn't"),
        ("DNAME a.example", "DNAME records aren't taken here, name each name by itself"),
        ("TXT", '"TXT": text input ended unexpectedly, write it like "TXT \\"v=spf1 -all\\""'),
        ("TXT v=DKIM1; k=rsa", "a ; outside quotes begins a comment, write it like"),
        (f'TXT "{"x" * 256}"', "too long"),
        ("TXT é", "is too long, or has foreign letters, use at most 14000 printable ASCII"),
        ("A 203.0.113", '"A 203.0.113": text input is malformed, write it as in a zone file'),
        ("MX 10 mail", "mail is no whole name, write it like"),
        ("CNAME @", "@ stands for nothing here, write the name whole"),
        ("MX 10 a.example extra", 'write it like "MX 10 mail.example.org"'),
        ("CAA 0 issue", 'write it like "CAA 0 issue \\"letsencrypt.org\\""'),
        ("HTTPS 1 . alpn=", "write it like"),
        ("TYPE65280 \\# 2 AB", "write it as in a zone file, after the type"),
    ],
)
def test_records_that_cannot_be(text: str, told: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    [problem] = errors(f'{ZONE}{NAME}records = [\n"{quoted}"]')
    assert problem.startswith("f.toml:12: dns.name[0].records[0]: ")
    assert told in problem


@given(st.text() | st.from_regex(r"\A(TXT|A|MX|CAA|HTTPS|SRV|TYPE\d+|LOC|NAPTR) [ -~]*\Z"))
def test_any_text_is_a_record_or_one_error(text: str) -> None:
    try:
        made = parse_record(text)
    except PydanticCustomError:
        return
    assert parse_record(made.text) == made
    assert made.text.count(" ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[dns]\nnames = []", "8: dns.names: unknown key, the nearest is name"),
        ("dns = 3", "uplink.isp-b.dns: unknown key"),
        ("[dns.name]\nname = 'a.b'", "7: dns.name: a table alone, write [[dns.name]], there may"),
        ("[dns.discover]\nname = 'a.b'", "dns.discover: not a list, write it in brackets"),
        ("[[dns.server]]\nport = 1", "dns.server: not a table, write it in [brackets]"),
        ("[dns]\ndiscover = ['icmp://192.0.2.1']", "is nobody to ask, write it like"),
        ("[dns]\ndiscover = ['dns://192.0.2.1']", "has no name to ask for, write it like"),
        ("[dns]\ndiscover = ['dns://192.0.2.1/a..b']", '"a..b" is no name to ask for'),
        ("[dns.server]\nport = 54", "7: dns.server: no zones, name those that are delegated here"),
        ("[dns.server]\nzones = ['*.a.b']", 'dns.server.zones[0]: "*.a.b" is no name'),
        ("[dns.server]\nzones = ['a.b', 'A.b.']", 'zones[1]: "a.b" is there twice, drop one'),
        (
            "[dns.server]\nzones = ['c.a.b', 'a.b']",
            '"c.a.b" is inside "a.b", which delegates nothing, drop it: its names can be in a.b',
        ),
        (f"{ZONE}contact = 'a.b@c.d'", "has more than a word before the @, use one without a"),
        (f"{ZONE}contact = 'a@b@c.d'", '"a.b@c.d" is no name'),
        (f"{ZONE}nameservers = ['ns.example.net']", "is in the zone, and has no address, use a"),
        (f"{ZONE}nameservers = ['ns-isp-a.example.net']", "is there by itself, drop it"),
        (f"{ZONE}nameservers = ['a.b', 'a.b']", '"a.b" is there twice'),
        (f"{ZONE}secondaries = ['ns.a.b']", '"ns.a.b" is not an IP address, write it like'),
        (f"{ZONE}secondaries = ['192.0.2.1', '192.0.2.1']", "is named more than once"),
        (
            f"{ZONE}secondaries = ['[2001:db8::1]:54']",
            'is an address and a port, write { address = "2001:db8::1", port = 54 }',
        ),
        (f"{ZONE}secondaries = [{{ port = 5 }}]", "secondaries[0].address: missing, name the"),
        (f"{ZONE}secondaries = [3]", "secondaries[0]: not a text"),
        (f"{ZONE}rate_limit = -1", "-1 is too small, use 0 or more"),
        (f"{ZONE}prot = 1", "dns.server.prot: unknown key, the nearest is port"),
        ("[[dns.update]]\nzone = 'a.b'", "dns.update[0].servers: missing, name those that take"),
        (
            "[[dns.update]]\nzone = 'a.b'\nservers = []",
            "no server, name one that takes updates of the zone",
        ),
        ("[[dns.update]]\nservers = ['192.0.2.1']", "dns.update[0].zone: missing, name it, as in"),
        (
            "[[dns.update]]\nzone = 'a.b'\nservers = [{ address = '192.0.2.1', kye = '/x' }]",
            "dns.update[0].servers[0].kye: unknown key, the nearest is key",
        ),
        (
            "[[dns.update]]\nzone = 'a.b'\nservers = ['192.0.2.1']\nkey = 'x'",
            '"x" is no absolute path, write it like "/etc/ifdefault/keys/update.key"',
        ),
        (
            "[[dns.provider]]\nzone = 'a.b'\nprovider = 'x'\ncredentials = ''",
            'credentials: "" is no absolute path',
        ),
        ("[[dns.provider]]\nzone = 'a.b'\ncredentials = '/x'", "provider: missing, name it as"),
        ("[[dns.provider]]\nzone = 'a.b'\nprovider = 'x'", "credentials: missing, name the file"),
        (
            "[[dns.provider]]\nzone = 'a.b'\nprovider = ''\ncredentials = '/x'",
            'provider: "" is too small, use 1 or more',
        ),
        ("[[dns.exec]]\nzone = 'a.b'", "dns.exec[0].program: missing, name an executable"),
        ("[[dns.exec]]\nprogram = 'x'", '"x" is no absolute path'),
        (f"{ANY}{ANY}", 'dns.exec[1].program: "/p" is there already, keep one table'),
        ("[[dns.exec]]\nprogram = '/p'\ntimeout_s = 0", "0 is too small, use 0.1 or more"),
        (NAME, "is in no zone that is published, add its zone: to zones of [dns.server], or with"),
        (
            f"{NAME}[[dns.exec]]\nprogram = '/p'\nzone = 'example.org'",
            "is in no zone that is published, use a name in example.org, or add its zone",
        ),
        (
            f"{ZONE}[[dns.name]]\nname = '{nameserver('isp-a', 'example.net')}'",
            '"ns-isp-a.example.net" is a name server\'s, made for its uplink, use another name',
        ),
        (
            f"{ZONE}[[dns.name]]\nname = 'example.net'\nuplinks = []\nrecords = ['CNAME a.b']",
            "records[0]: a CNAME for a whole zone, write what it leads to",
        ),
        (
            f"{NAME}records = ['TXT x']\n{ANY}",
            "dns.name[0].records: only the embedded server publishes records, write them in the",
        ),
        (f"{NAME}{NAME}{ANY}", 'dns.name[1].name: "www.example.net" is there already, keep one'),
    ],
)
def test_tables(text: str, told: str) -> None:
    [problem] = errors(text)
    assert told in problem


WHOLE: dict[str, Any] = {
    "discover": [DISCOVER_EXAMPLE],
    "name": [
        {"name": "www.a.b", "policy": "rotate", "ttl": 30, "uplinks": [], "records": ["TXT x"]},
        {"name": "www.c.d"},
    ],
    "server": {
        "zones": ["a.b"],
        "contact": "x@y.z",
        "nameservers": ["ns.y.z"],
        "secondaries": [{"address": "192.0.2.1", "port": 53, "key": "/k"}],
        "port": 53,
        "rate_limit": 1,
    },
    "update": [{"zone": "c.d", "servers": ["192.0.2.1"], "key": "/k"}],
    "provider": [{"zone": "e.f", "provider": "x", "credentials": "/c", "timeout_s": 1.5}],
    "exec": [{"program": "/p", "zone": "", "timeout_s": 1}],
}


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside."""
    if not isinstance(value, dict | list):
        return [at]
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    return [at, *(place for key, inner in inside for place in places(inner, (*at, key)))]


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(inner)}" for key, inner in value.items()) + "}"
    return f"[{', '.join(map(inline, value))}]" if isinstance(value, list) else json.dumps(value)


_STRANGE = st.sampled_from([0, -1, True, 1.5, "", "x", "*.a.b", [], [[]], {}, {"x": 1}, [{}, 3]])


@given(st.lists(st.tuples(st.sampled_from(places(WHOLE)), _STRANGE), max_size=3))
def test_whatever_stands_there_is_an_error_at_most(changes: list[Any]) -> None:
    assert parsed_or_told(WHOLE) == []
    changed: Any = {"dns": deepcopy(WHOLE)}
    for place, value in changes:
        *path, last = list[Any](("dns", *place))
        with suppress(LookupError, TypeError):  # it was changed around there before
            reduce(getitem, path, changed)[last] = deepcopy(value)
    for problem in parsed_or_told(changed["dns"]):
        assert problem.startswith("f.toml:1: dns")


def parsed_or_told(dns: Any) -> list[str]:
    try:
        config.parse(f"dns = {inline(dns)}\n{UPLINKS}", "f.toml")
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_without_uplinks_none_is_missed() -> None:
    for uplinks in ("", "uplink = 3\n"):
        with pytest.raises(ConfigError) as raised:
            config.parse(f"{uplinks}{ZONE}{NAME}uplinks = ['isp-a']", "f.toml")
        assert {str(problem).split(": ")[1] for problem in raised.value.problems} == {"uplink"}


def test_256_names_and_no_more() -> None:
    names = "".join(f'[[dns.name]]\nname = "n{n}.a.b"\n' for n in range(257))
    assert errors(ANY + names) == ["f.toml:9: dns.name: 257 of them, keep at most 256"]


@pytest.mark.parametrize(
    ("public", "told"),
    [
        ('"discovery"', '"discovery" is no choice, use "discover", or a list of addresses'),
        ('"198.51.100.7"', "is no choice"),
        ('["198.51.100.7", "discover"]', '"discover" beside addresses, name all, or write public'),
        ('["198.51.100.7", "198.51.100.8"]', "2 IPv4 addresses, keep the one that the DNS is to"),
        ('["127.0.0.1"]', '"127.0.0.1" is no host on a link'),
        ('["fe80::1"]', "is link-local"),
        ("[7]", 'not a text, write it in "double quotes"'),
        ('"discover"', "nobody to discover it from, name one below [dns]: discover = ["),
    ],
)
def test_public_addresses(public: str, told: str) -> None:
    [problem] = errors(f'[uplink.c]\ninterface = "wan2"\npublic = {public}\n')
    assert problem.startswith("f.toml:9: uplink.c.public")
    assert told in problem
