"""What `reload` says of the DNS."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.dns.config_changes import config_changes
from ifdefault.model.dns import (
    DnsConfig,
    Endpoint,
    ExecConfig,
    NameConfig,
    ProviderConfig,
    ServerConfig,
    UpdateConfig,
)
from tests.unit.dnszones import record

WWW = NameConfig("www.example.net", records=(record("MX", "10 mail.example.org."),))
SERVER = ServerConfig(("example.net",), secondaries=(Endpoint("192.0.2.53"),))
BEFORE = DnsConfig((WWW,), SERVER, (UpdateConfig("b.example", (Endpoint("192.0.2.1"),)),))


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        (BEFORE, ()),
        (DnsConfig(), (
            "dns.server: zones -example.net, secondaries -192.0.2.53",
            "dns.name www.example.net: removed",
            "dns.update b.example: removed",
        )),
        (replace(BEFORE, names=(NameConfig("*.example.net"), WWW)), (
            "dns.name *.example.net: added",
        )),
        (replace(BEFORE, names=(replace(WWW, policy="failover", ttl=60, uplinks=("isp-a",)),)), (
            ("dns.name www.example.net: policy rotate -> failover, ttl 30 -> 60, uplinks all ->"
            " isp-a"),
        )),
        (replace(BEFORE, names=(replace(WWW, uplinks=(), records=(record("A", "192.0.2.1"),)),)), (
            ("dns.name www.example.net: uplinks all -> none, records +(192.0.2.1)"
            " -(10 mail.example.org.)"),
        )),
        (replace(BEFORE, server=replace(SERVER, zones=("a.example", "example.net"), contact="h.a",
                 secondaries=(Endpoint("192.0.2.53", 5353, "/k"),), rate_limit=0)), (
            ('dns.server: zones +a.example, contact "" -> h.a,'
            " secondaries +192.0.2.53 (port 5353, key /k) -192.0.2.53, rate_limit 100 -> 0"),
        )),
        (replace(BEFORE, updates=(UpdateConfig("b.example", (Endpoint("192.0.2.2"),)),)), (
            "dns.update b.example: servers +192.0.2.2 -192.0.2.1",
        )),
        (replace(BEFORE, providers=(ProviderConfig("c.example", "powerdns", "/c"),),
                 execs=(ExecConfig("/p", "d.example"), ExecConfig("/p"))), (
            "dns.provider c.example: added",
            "dns.exec /p d.example: added",
            "dns.exec /p: added",
        )),
        (replace(BEFORE, discover=("dns://192.0.2.1/a",)), ("dns: discover +dns://192.0.2.1/a",)),
    ],
)  # fmt: skip
def test_what_changes(after: DnsConfig, lines: tuple[str, ...]) -> None:
    assert config_changes(BEFORE, after) == lines


def test_an_order_counts() -> None:
    both = replace(SERVER, nameservers=("a.example", "b.example"))
    turned = replace(both, nameservers=both.nameservers[::-1])
    found = config_changes(DnsConfig(server=both), DnsConfig(server=turned))
    assert found == ("dns.server: nameservers in another order",)
