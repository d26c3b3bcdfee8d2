"""The DNS in the config file: what it means, and what is rejected, with line and remedy."""

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
from ifdefault.model.dns import (
    DnsConfig,
    Endpoint,
    ExecConfig,
    NameConfig,
    ProviderConfig,
    Record,
    ServerConfig,
    UpdateConfig,
    nameserver,
)
from ifdefault.model.errors import ConfigError
from tests.unit.uplinks import UPLINKS

ANY = '[[dns.exec]]\nprogram = "/p"\n'  # takes every name
LONG_ZONE = ".".join(["a" * 61] * 3 + ["b" * 59])  # 245 characters
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


# --- valid configs -------------------------------------------------------------------------


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


def test_an_empty_list_of_uplinks_is_not_the_same_as_none() -> None:
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
        ("SRV 0 0 443 A.example.ORG.", "SRV 0 0 443 a.example.org."),
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


# --- invalid configs -----------------------------------------------------------------------


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
            'f.toml:8: dns.name[0].name: "www.example.com" is in no published zone; use a '
            "name in example.net or example.org, or add its zone to zones of [dns.server], or to "
            "a table such as [[dns.update]]"
        ),
        ("f.toml:9: dns.name[0].ttl: a TTL of 0 disables caching; use 1 or more, such as 30"),
        'f.toml:10: dns.name[0].uplinks[0]: "isp-c" is not an uplink; did you mean isp-b?',
        (
            "f.toml:11: dns.name[0].records[0]: 2001:db8::1 belongs to no uplink; "
            "remove it (names get their uplinks' addresses automatically), or add it to addresses "
            "or public of an uplink"
        ),
        'f.toml:13: dns.name[1].name: "a..b" is not a domain name; write it like "www.example.net"',
        (
            'f.toml:14: dns.name[1].records[0]: "CNAME": expecting an identifier; write it like '
            '"CNAME www.example.org"'
        ),
        'f.toml:15: dns.name[2].name: missing; write the full name, as in name = "www.example.net"',
        "f.toml:16: dns.name[2].nmae: unknown key; did you mean name?",
        (
            'f.toml:19: dns.name[3].policy: "roundrobin" is not valid; use one of "rotate", '
            '"weighted", "failover", "arrival" or "arrival-only"'
        ),
        (
            'f.toml:21: dns.name[4].name: "www.example.net" is already defined; put all its '
            "records in one table"
        ),
        "f.toml:22: dns.name[4].ttl: 86401 is too large; use 86400 or less",
        (
            "f.toml:23: dns.name[4].records[0]: a CNAME can't have other records beside it; "
            "keep it or them (RFC 1034, 3.6.2)"
        ),
        (
            "f.toml:23: dns.name[4].records[0]: a CNAME can't have addresses beside it; "
            "remove it, or add uplinks = []"
        ),
        "f.toml:27: dns.server.port: 0 is too small; use 1 or more",
        (
            'f.toml:32: dns.update[1].zone: "example.org" is already defined; keep one table with '
            "all its servers"
        ),
    ]


def test_what_an_invalid_table_may_contain_is_not_reported_missing() -> None:
    """A zone, an uplink, an address, a discovery URL or a name, left out for another error."""
    text = f"""{NAME}uplinks = ["c"]\nrecords = ["A 192.0.2.9"]\n
[uplink.c]\ninterface = "wan3"\naddresses = ["192.0.2.9"]\nrank = -1\npublic = "discover"
[uplink.d]\ninterface = "wan4"\npublic = "discover"
[dns]\ndiscover = ["ftp://x"]
[dns.server]\nzones = ["example.net", "x..y"]\nnameservers = ["ns.example.net"]
[[dns.name]]\nname = "ns.example.net"\nttls = 3"""
    where = [problem.split(": ")[1] for problem in errors(text)]
    assert where == [
        "dns.name[0].records[0]",  # an address of uplink.c, but beside the others
        "uplink.c.rank",
        "dns.discover[0]",
        "dns.server.zones[1]",
        "dns.name[1].ttls",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name = 3", "name: not a string"),
        ("name = ''", '"" is not a domain name; write it like "www.example.net"'),
        ("name = 'a b.example'", '"a b.example" is not a domain name'),
        ("name = '*'", '"*" is not a domain name'),
        ("name = 'a.*.example.net'", '"a.*.example.net" is not a domain name'),
        ("name = '192.0.2.1'", '"192.0.2.1" is not a domain name'),
        ("name = 'münchen.example'", "has non-ASCII letters; write it in Punycode, xn--…"),
        (f"name = '{'a.' * 127}a'", "is not a domain name"),
        (f"name = '{'a' * 64}.example'", "is not a domain name"),
        ("policy = 'best'", 'policy: "best" is not valid; use one of "rotate"'),
        ("ttl = 0", "ttl: a TTL of 0 disables caching; use 1 or more, such as 30"),
        ("ttl = -1", "ttl: -1 is too small; use 1 or more"),
        ("ttl = false", "ttl: not a whole number"),
        ("ttl = '30'", "ttl: not a whole number"),
        ("uplinks = 'isp-a'", 'uplinks: not a list; write it in brackets: ["…"]'),
        ("uplinks = ['isp-a', 'isp-a']", '"isp-a" is listed more than once; list it once'),
        ("uplinks = ['isp-c']", '"isp-c" is not an uplink; did you mean isp-'),
        ("uplinks = ['zzz']", '"zzz" is not an uplink; use isp-a or isp-b'),
        ("uplinks = []", "uplinks: no uplink and no record; add one, or remove uplinks to use"),
        ("upliks = []", "upliks: unknown key; did you mean uplinks?"),
        ("records = ['TXT x', 'TXT \"x\"']", "is listed twice; remove one"),
        ("records = ['MX 1 a.b', 'MX 1 A.B.']", "is listed twice; remove one"),
        ("records = [" + '"TXT x", ' * 65 + "]", "records: 65 items; use at most 64"),
        (
            f'records = ["TYPE9998 \\\\# 3 000000", "TYPE9999 \\\\# 3498 {"00" * 3498}"]',
            "records: 3501 bytes of data; use at most 3500 per name",
        ),
        ("records = ['A 192.0.2.1']", "192.0.2.1 belongs to no uplink; remove it"),
        ("uplinks = []\nrecords = ['A 192.0.2.1']", "belongs to no uplink"),
        ("records = ['HTTPS 1 . ipv6hint=2001:db8::7']", "2001:db8::7 belongs to no uplink"),
        (
            "records = ['A 203.0.113.10']",
            "the name already has the addresses of its uplinks; remove it (names get",
        ),
        (
            "records = ['CNAME a.example.org']",
            "a CNAME can't have addresses beside it; remove it, or add uplinks",
        ),
    ],
)
def test_name_keys(line: str, message: str) -> None:
    head = "[[dns.name]]\n" if line.startswith("name") else NAME
    [problem] = errors(f"{ZONE}{head}{line}")
    assert ": dns.name[0]." in problem
    assert message in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '"": no record type; write it like'),
        ("CCA 0 issue x", '"CCA 0 issue x": CCA is not a record type; did you mean CAA?'),
        ("300 IN TXT x", "300 is not a record type; write it like"),
        ("TYPE99999 x", "TYPE99999 is not a record type"),
        ("TYPE0 \\# 0", "is a query type"),
        ("ANY", "ANY is a query type; use a record type"),
        ("OPT x", "OPT is a query type"),
        (
            "SOA a. b. 1 2 3 4 5",
            "SOA records aren't allowed here; remove it: the zones of [dns.server] have",
        ),
        ("type2 ns.example.net", "NS records aren't allowed here"),
        (
            "DS 1 8 2 AA",
            "DS records aren't allowed here; remove it: the zones published here aren't signed",
        ),
        ("DNAME a.example", "DNAME records aren't allowed here; add a CNAME for each name"),
        ("TXT", '"TXT": text input ended unexpectedly; write it like "TXT \\"v=spf1 -all\\""'),
        ("TXT v=DKIM1; k=rsa", "a ; outside quotes begins a comment; write it like"),
        (f'TXT "{"x" * 256}"', "too long"),
        ("TXT é", "is too long, or not printable ASCII; use at most 14000 printable ASCII"),
        ("A 203.0.113", '"A 203.0.113": text input is malformed; write it as in a zone file'),
        ("MX 10 mail", "mail is not a full name; write it like"),
        ("CNAME @", "@ has no meaning here; write the full name"),
        ("MX 10 a.example extra", 'write it like "MX 10 mail.example.org"'),
        ("CAA 0 issue", 'write it like "CAA 0 issue \\"letsencrypt.org\\""'),
        ("HTTPS 1 . alpn=", "write it like"),
        ("TYPE65280 \\# 2 AB", "write it as in a zone file, after the type"),
    ],
)
def test_invalid_records(text: str, message: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    [problem] = errors(f'{ZONE}{NAME}records = [\n"{quoted}"]')
    assert problem.startswith("f.toml:12: dns.name[0].records[0]: ")
    assert message in problem


@given(st.text() | st.from_regex(r"\A(TXT|A|MX|CAA|HTTPS|SRV|TYPE\d+|LOC|NAPTR) [ -~]*\Z"))
def test_any_text_is_a_record_or_one_error(text: str) -> None:
    try:
        made = parse_record(text)
    except PydanticCustomError:
        return
    assert parse_record(made.text) == made
    assert made.text.count(" ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dns]\nnames = []", "8: dns.names: unknown key; did you mean name?"),
        ("dns = 3", "uplink.isp-b.dns: unknown key"),
        ("[dns.name]\nname = 'a.b'", "7: dns.name: not a list of tables; write [[dns.name]] for"),
        ("[dns]\nname = 'a.b'", "8: dns.name: not a list of tables; write [[dns.name]] for each"),
        ("[dns.discover]\nname = 'a.b'", "dns.discover: not a list; write it in brackets"),
        ("[[dns.server]]\nport = 1", "dns.server: not a table; write it in [brackets]"),
        (
            "[dns]\ndiscover = ['icmp://192.0.2.1']",
            "is not the URL of a discovery service; write it like",
        ),
        ("[dns]\ndiscover = ['dns://192.0.2.1']", "has no name to query; write it like"),
        ("[dns]\ndiscover = ['dns://192.0.2.1/a..b']", '"a..b" is not a name to query'),
        ("[dns.server]\nport = 54", "7: dns.server: no zones; list those delegated to this host"),
        ("[dns.server]\nzones = ['*.a.b']", 'dns.server.zones[0]: "*.a.b" is not a domain name'),
        ("[dns.server]\nzones = ['a.b', 'A.b.']", 'zones[1]: "a.b" is listed twice; remove one'),
        (
            "[dns.server]\nzones = ['c.a.b', 'a.b']",
            '"c.a.b" is inside "a.b", which delegates nothing; remove it: its names can be in a.b',
        ),
        (f"{ZONE}contact = 'a.b@c.d'", "has special characters before the @; use only letters,"),
        (f"{ZONE}contact = 'a@b@c.d'", '"a.b@c.d" is not a domain name'),
        (f"{ZONE}nameservers = ['ns.example.net']", "is in the zone and has no address; use a"),
        (f"{ZONE}nameservers = ['ns-isp-a.example.net']", "is generated automatically; remove it"),
        (f"{ZONE}nameservers = ['a.b', 'a.b']", '"a.b" is listed twice'),
        (f"{ZONE}secondaries = ['ns.a.b']", '"ns.a.b" is not an IP address; write it like'),
        (f"{ZONE}secondaries = ['192.0.2.1', '192.0.2.1']", "is listed more than once"),
        (
            f"{ZONE}secondaries = ['[2001:db8::1]:54']",
            'is an address and a port; write { address = "2001:db8::1", port = 54 }',
        ),
        (f"{ZONE}secondaries = [{{ port = 5 }}]", "secondaries[0].address: missing; name the"),
        (f"{ZONE}secondaries = [3]", "secondaries[0]: not a string"),
        (f"{ZONE}rate_limit = -1", "-1 is too small; use 0 or more"),
        (f"{ZONE}prot = 1", "dns.server.prot: unknown key; did you mean port?"),
        ("[[dns.update]]\nzone = 'a.b'", "dns.update[0].servers: missing; name the servers that"),
        (
            "[[dns.update]]\nzone = 'a.b'\nservers = []",
            "no server; name one that accepts updates of the zone",
        ),
        ("[[dns.update]]\nservers = ['192.0.2.1']", "dns.update[0].zone: missing; name it, as in"),
        (
            "[[dns.update]]\nzone = 'a.b'\nservers = [{ address = '192.0.2.1', kye = '/x' }]",
            "dns.update[0].servers[0].kye: unknown key; did you mean key?",
        ),
        (
            "[[dns.update]]\nzone = 'a.b'\nservers = ['192.0.2.1']\nkey = 'x'",
            '"x" is not an absolute path; write it like "/etc/ifdefault/keys/update.key"',
        ),
        (
            "[[dns.provider]]\nzone = 'a.b'\nprovider = 'x'\ncredentials = ''",
            'credentials: "" is not an absolute path',
        ),
        ("[[dns.provider]]\nzone = 'a.b'\ncredentials = '/x'", "provider: missing; name it as"),
        ("[[dns.provider]]\nzone = 'a.b'\nprovider = 'x'", "credentials: missing; name the file"),
        (
            "[[dns.provider]]\nzone = 'a.b'\nprovider = ''\ncredentials = '/x'",
            'provider: "" is too short; use 1 or more',
        ),
        ("[[dns.exec]]\nzone = 'a.b'", "dns.exec[0].program: missing; name an executable"),
        ("[[dns.exec]]\nprogram = 'x'", '"x" is not an absolute path'),
        (f"{ANY}{ANY}", 'dns.exec[1].program: "/p" is already defined; keep one table'),
        ("[[dns.exec]]\nprogram = '/p'\ntimeout_s = 0", "0 is too small; use 0.1 or more"),
        (NAME, "is in no published zone; add its zone to zones of [dns.server], or to"),
        (
            f"{NAME}[[dns.exec]]\nprogram = '/p'\nzone = 'example.org'",
            "is in no published zone; use a name in example.org, or add its zone",
        ),
        (
            f"[dns.server]\nzones = ['{LONG_ZONE[2:]}']",
            f'"hostmaster.{LONG_ZONE[2:]}" would be longer than 253 characters; use a shorter zone',
        ),
        (
            f"[dns.server]\nzones = ['{LONG_ZONE}']\ncontact = 'a.b'",
            f'"ns-isp-a.{LONG_ZONE}" would be longer than 253 characters; use a shorter zone',
        ),
        (
            f"{ZONE}[[dns.name]]\nname = '{nameserver('isp-a', 'example.net')}'",
            '"ns-isp-a.example.net" is the generated name of a name server; use another name',
        ),
        (
            f"{ZONE}[[dns.name]]\nname = 'example.net'\nuplinks = []\nrecords = ['CNAME a.b']",
            "records[0]: a CNAME at the apex of a zone; use the records of its target",
        ),
        (
            f"{NAME}records = ['TXT x']\n{ANY}",
            "dns.name[0].records: only the embedded server publishes records; add them to the",
        ),
        (
            f"{NAME}{NAME}{ANY}",
            'dns.name[1].name: "www.example.net" is already defined; put all its records',
        ),
    ],
)
def test_tables(text: str, message: str) -> None:
    [problem] = errors(text)
    assert message in problem


EVERY_KEY: dict[str, Any] = {
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


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of a value and of all values in it."""
    if not isinstance(value, dict | list):
        return [at]
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    return [at, *(path for key, inner in inside for path in paths(inner, (*at, key)))]


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(inner)}" for key, inner in value.items()) + "}"
    return f"[{', '.join(map(inline, value))}]" if isinstance(value, list) else json.dumps(value)


_ODD_VALUES = st.sampled_from([0, -1, True, 1.5, "", "x", "*.a.b", [], [[]], {}, {"x": 1}, [{}, 3]])


@given(st.lists(st.tuples(st.sampled_from(paths(EVERY_KEY)), _ODD_VALUES), max_size=3))
def test_any_value_is_valid_or_an_error(changes: list[Any]) -> None:
    assert errors_of(EVERY_KEY) == []
    changed: Any = {"dns": deepcopy(EVERY_KEY)}
    for where, value in changes:
        *path, last = list[Any](("dns", *where))
        with suppress(LookupError, TypeError):  # an earlier change removed it
            reduce(getitem, path, changed)[last] = deepcopy(value)
    for problem in errors_of(changed["dns"]):
        assert problem.startswith("f.toml:1: dns")


def errors_of(dns: Any) -> list[str]:
    try:
        config.parse(f"dns = {inline(dns)}\n{UPLINKS}", "f.toml")
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_without_uplinks_no_other_error_is_reported() -> None:
    for uplinks in ("", "uplink = 3\n"):
        with pytest.raises(ConfigError) as raised:
            config.parse(f"{uplinks}{ZONE}{NAME}uplinks = ['isp-a']", "f.toml")
        assert {str(problem).split(": ")[1] for problem in raised.value.problems} == {"uplink"}


def test_256_names_and_no_more() -> None:
    names = "".join(f'[[dns.name]]\nname = "n{n}.a.b"\n' for n in range(257))
    assert errors(ANY + names) == ["f.toml:9: dns.name: 257 items; use at most 256"]


@pytest.mark.parametrize(
    ("public", "message"),
    [
        ('"discovery"', '"discovery" is not valid; use "discover", or a list of addresses'),
        ('"198.51.100.7"', "is not valid"),
        (
            '["198.51.100.7", "discover"]',
            '"discover" can\'t be combined with addresses; list all addresses, or set public',
        ),
        ('["198.51.100.7", "198.51.100.8"]', "2 IPv4 addresses; keep the one to be published"),
        ('["127.0.0.1"]', '"127.0.0.1" is not a usable host address'),
        ('["fe80::1"]', "is link-local"),
        ("[7]", 'not a string; write it in "double quotes"'),
        ('"discover"', "no discovery service is configured; add discover = ["),
    ],
)
def test_public_addresses(public: str, message: str) -> None:
    [problem] = errors(f'[uplink.c]\ninterface = "wan2"\npublic = {public}\n')
    assert problem.startswith("f.toml:9: uplink.c.public")
    assert message in problem
