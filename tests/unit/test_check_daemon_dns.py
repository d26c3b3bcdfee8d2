"""What `check` finds missing on the host for the [dns] of a config."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ifdefault.host.check_daemon import find_problems
from ifdefault.kernel import open_dns_sockets
from ifdefault.model.config import Config, DaemonConfig, UplinkConfig
from ifdefault.model.dns import (
    DISCOVER,
    DnsConfig,
    Endpoint,
    ExecConfig,
    NameConfig,
    ProviderConfig,
    Record,
    ServerConfig,
    UpdateConfig,
)
from ifdefault.model.kernel import Uplink

ME = DaemonConfig(user=str(os.getuid() or 4711))


def problems_of(
    dns: DnsConfig, address: str = "203.0.113.10", public: tuple[str, ...] = ()
) -> list[str]:
    uplink = Uplink("a", 1, "wan0", 1001, 0, 0, 0, sources=((4, address),))
    config = Config((UplinkConfig("a", "wan0", public=public),), daemon=ME, dns=dns)
    problems = list(find_problems(config, (uplink,)))
    assert all(problem.warning for problem in problems)
    return [str(p) for p in problems if p.where.startswith("dns") or "names" in p.what or p.remedy]


NAMED = DnsConfig((NameConfig("www.example"),))


def test_an_address_that_the_internet_cannot_reach() -> None:
    assert problems_of(NAMED) == []
    (problem,) = problems_of(NAMED, "192.168.1.2")
    assert problem.startswith("uplink.a: 192.168.1.2 is private")
    assert problems_of(NAMED, "192.168.1.2", ("203.0.113.7",)) == []
    assert problems_of(NAMED, "192.168.1.2", (DISCOVER,)) == []
    assert problems_of(DnsConfig(), "192.168.1.2") == [], "without names it doesn't matter"


def test_host_names_with_an_underscore() -> None:
    names = (
        NameConfig("my_shop.example"),
        NameConfig("_dmarc.example", uplinks=(), records=(Record(16, b"\1x", 'TXT "x"'),)),
        NameConfig("a.example", records=(Record(15, b"\0\1\3m_x\1b\0", "MX 1 m_x.b."),)),
    )
    server = ServerConfig(("_acme.example", "example"), nameservers=("n_s.b",))
    rule = "has an underscore, which host names must not have"
    assert problems_of(DnsConfig(names, server)) == [
        (
            f"dns.name[0].name: my_shop.example {rule}; "
            "rename it, or add uplinks = [] if it needs no address"
        ),
        f"dns.name[2].records[0]: m_x.b {rule}; use another name",
        f"dns.server.nameservers[0]: n_s.b {rule}; use another name",
        (
            f"dns.server.zones[0]: _acme.example {rule}; "
            "use another zone: the names of its name servers are in it"
        ),
    ]


def test_secrets_that_others_may_read(tmp_path: Path) -> None:
    key = tmp_path / "key"
    dns = DnsConfig(
        updates=(UpdateConfig("example", (Endpoint("192.0.2.53", key=str(key)),)),),
        server=ServerConfig(secondaries=(Endpoint("192.0.2.54", key=str(key)),)),
        providers=(ProviderConfig("example", "powerdns", str(key)),),
    )
    wheres = ("dns.server.secondaries", "dns.update", "dns.provider")
    expected = [f"{where}: {key} can't be read: no such file or directory" for where in wheres]
    assert [problem.rpartition("; ")[0] for problem in problems_of(dns)][:3] == expected
    key.write_text('key k { algorithm hmac-sha256; secret "c2VjcmV0"; };')
    key.chmod(0o444)
    assert all(
        f"is readable by others; run chmod 0400 {key}" in problem
        for problem in problems_of(dns)[:3]
    )
    key.chmod(0o400)
    if os.getuid():
        assert problems_of(dns) == []
    else:
        assert all(
            "isn't owned by 4711, which reads it" in problem for problem in problems_of(dns)[:3]
        )
        os.chown(key, 4711, 4711)
        assert problems_of(dns) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            'key k { algorithm hmac-md5; secret "c2VjcmV0"; };',
            (
                "hmac-md5 isn't secure and isn't supported (RFC 8945, 6); make a key with"
                " tsig-keygen -a hmac-sha256 NAME, and use it on both sides"
            ),
        ),
        (
            "secret",
            (
                "it isn't a key; use the output of tsig-keygen:"
                ' key "NAME" { algorithm hmac-sha256; secret "…"; };'
            ),
        ),
    ],
)
def test_keys_that_are_none(tmp_path: Path, text: str, what: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    key.chmod(0o400)
    if not os.getuid():
        os.chown(key, 4711, 4711)
    servers = (Endpoint("192.0.2.53", key=str(key)), Endpoint("192.0.2.54", key=str(key)))
    dns = DnsConfig(
        updates=(UpdateConfig("example", servers),),
        providers=(ProviderConfig("example.org", "powerdns", str(key)),),
    )
    assert [p for p in problems_of(dns) if "lexicon" not in p] == [f"dns.update: {key}: {what}"]


def test_programs(tmp_path: Path) -> None:
    dns = DnsConfig(execs=(ExecConfig(str(tmp_path / "publish")),))
    (problem,) = problems_of(dns)
    assert problem.startswith(f"dns.exec: {tmp_path}/publish can't be run")


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_port_that_is_in_use(kind: str, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    types = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}
    with socket.socket(family, types[kind]) as other:
        other.bind((host, 0))
        port = other.getsockname()[1]
        if kind == "tcp":
            assert not open_dns_sockets.holders(kind, ["127.0.0.1"], port), "it doesn't listen yet"
            other.listen()
        dns = DnsConfig(server=ServerConfig(("example",), port=port))
        (problem,) = problems_of(dns, "127.0.0.1")
        assert problem.startswith(f"dns.server.port: port {port} of 127.0.0.1 ({kind}) is used by ")
        assert f"(pid {os.getpid()})" in problem
    assert problems_of(dns, "127.0.0.1") == []
