"""The config file: a Config, or a ConfigError whose every problem says in one line where it is.

Rules: what the config accepts works everywhere: recorded and read again, as a zone, as messages of
the channel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ifdefault.config import parse, toml_lines
from ifdefault.config.probe_url import parse_url
from ifdefault.dns.publish import publish, serve
from ifdefault.dns.table import Table
from ifdefault.ipc import codec
from ifdefault.ipc.messages import (
    TO_DNS_SERVER,
    TO_FRONTEND,
    Fetch,
    Message,
    Query,
    Resolve,
    Send,
    Update,
    ZoneEnd,
    ZoneHead,
    ZoneName,
    decode,
    encode,
)
from ifdefault.model.config import Config
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.errors import ConfigError
from ifdefault.model.health import Decision
from ifdefault.plan import servers
from tests.unit.test_manual import KEYS, fenced, toml_blocks

KIND = "text"
ROOT = Path(__file__).parents[3]
WORDS = tuple(
    '"x" "" "isp-a" "192.0.2.1" "::1" "2001:db8::/32" "0.0.0.0/0" "tcp:443" "udp:1-65535" "www.a.b"'
    ' "*.a" "a..b" "\\u0000" "\\u001b[2J" "\\u202e" "é" "http://x/" "icmp://::1" "/a" "auto" [] {}'
    " [[]] [1] 0 -1 1 254 65536 9223372036854775808 1e400 nan inf 0.5 true 1979-05-27 ''' [a.b]"
    .split()
)  # fmt: skip
_USERS = {"www-data": 33}


def seeds() -> list[bytes]:
    files = [*(ROOT / "docs/examples").glob("*.toml"), *(ROOT / "tests/golden").glob("*/*.toml")]
    blocks = [*toml_blocks(KEYS.read_text()), *fenced((ROOT / "README.md").read_text(), "toml")]
    return [*(path.read_bytes() for path in sorted(files)), *map(str.encode, blocks)]


def one(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        config = parse(text, "f.toml", _USERS.get)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert str(problem).isprintable(), problem
            assert re.match(r"f\.toml:\d+(:\d+|: )?", problem.where), problem
            assert problem.what
            assert problem.remedy, problem
        return
    assert toml_lines.locate(text).keys() or not config.uplinks
    assert codec.from_json(Config, codec.read(codec.write(codec.to_json(config)))) == config
    assert 0 < len(config.uplinks) <= 31
    for message, way in _messages(config):
        assert decode(encode(message), way) == [message]


def _messages(config: Config) -> Iterator[tuple[Message, tuple[type[Message], ...]]]:
    """Those that the engine sends for a config, as it sends them."""
    offers = [
        CandidateAddresses(uplink.name, uplink.weight, (f"192.0.2.{number}", f"2001:db8::{number}"))
        for number, uplink in enumerate(config.uplinks, 1)
    ]
    names = tuple(uplink.name for uplink in config.uplinks)
    decision = Decision(((4, names), (6, names)), ((4, names), (6, names)))
    zones = serve(config.dns, publish(config.dns, offers, decision, ()), offers)
    assert len(Table.build(zones).nodes) >= len(zones)
    for zone in zones:
        yield ZoneHead(zone.zone, zone.serial, zone.contact, zone.nameservers), TO_DNS_SERVER
        for name in zone.names:
            addresses = tuple((a.uplink, a.address, a.weight) for a in name.addresses)
            records = tuple((record.type, record.rdata.hex()) for record in name.records)
            yield ZoneName(name.name, name.policy, name.ttl, addresses, records), TO_DNS_SERVER
    secondaries = tuple((s.address, s.port, s.key) for s in config.dns.server.secondaries)
    yield ZoneEnd(secondaries, config.dns.server.rate_limit, ()), TO_DNS_SERVER
    for probe in config.health.probes:
        what = (probe.port, probe.host, probe.path, probe.statuses, 500)
        yield Resolve(probe.host), TO_FRONTEND
        yield Send(1, 1, probe.kind, "192.0.2.1", *what), TO_FRONTEND
    for (address, port), check in servers.checks(config.forwards).items():
        kind, query = ("tcp", "") if check == "tcp" else ("http", check)
        yield Send(1, 1, kind, address, port, address, query, (), 500), TO_FRONTEND  # type: ignore[arg-type]
    for service in map(parse_url, config.dns.discover):
        where = (1, "192.0.2.1", service.port)
        if service.kind == "dns":
            yield Query(*where, "", service.path, "A", True), TO_FRONTEND
        else:
            secure = service.kind == "https"
            yield Fetch(*where, service.host, service.path, secure), TO_FRONTEND
    for update in config.dns.updates:
        for server in update.servers:
            at = (1, server.address, server.port, server.key, update.zone)
            yield Update(*at, f"a.{update.zone}", 30, ("192.0.2.1",), ()), TO_FRONTEND
