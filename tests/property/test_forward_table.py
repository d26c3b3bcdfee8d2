"""For any services: the table gives each server its share, and rejects what it should.

Rules: the text is read and followed as the kernel would, lots as likelihoods; what it should say
is worked out from the config alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from fractions import Fraction
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.model.config import ForwardConfig, ForwardServer, Ports
from ifdefault.plan import forward_table
from tests.unit.test_forward_table import uplink

UPLINKS = (
    uplink(1, "203.0.113.10", "203.0.113.11", "2001:db8:a::10"),
    uplink(2, "198.51.100.10"),
    uplink(3, "2001:db8:c::10"),
)
ADDRESSES = [a.address for u in UPLINKS for a in u.addresses]
SERVERS = [*(f"10.0.0.{n}" for n in range(1, 5)), *(f"fd00::{n}" for n in range(1, 4))]
REFUSED, PASSED = "refused", "passed"

_DOWN: list[Literal["next", "reset"]] = ["next", "reset"]
Likelihoods = dict[str, Fraction]  # "10.0.0.1:80", REFUSED or PASSED


class Table:
    """Evaluates the table's text for one packet."""

    def __init__(self, text: str, address: str, transport: str, port: int) -> None:
        self.address, self.transport, self.port = address, transport, port
        blocks = re.findall(r"^\t(?:chain|map) (\w+) {\n(.*?)^\t}", text, re.DOTALL | re.MULTILINE)
        self.blocks = {name: [s.strip() for s in body.splitlines()] for name, body in blocks}

    def fate(self) -> Likelihoods:
        found = self.chain("reject_prerouting")
        rest = found.pop(PASSED)
        for outcome, share in self.chain("dnat_prerouting").items():
            found[outcome] = found.get(outcome, Fraction(0)) + rest * share
        return {outcome: share for outcome, share in found.items() if share}

    def chain(self, name: str) -> Likelihoods:
        found: Likelihoods = defaultdict(Fraction)
        rest = Fraction(1)
        for line in self.blocks.get(name, []):
            told = self.statement(line)
            for outcome, share in told.items():
                if outcome != PASSED:
                    found[outcome] += rest * share
            rest *= told.get(PASSED, Fraction(0))
        found[PASSED] = rest
        return found

    def statement(self, line: str) -> Likelihoods:
        passed = {PASSED: Fraction(1)}
        if match := re.fullmatch(r"(.*)(?:jump|goto) (\w+)", line):
            likely = self.likelihood(match[1])
            told = self.chain(match[2]) if likely else passed
            weighed = {outcome: share * likely for outcome, share in told.items()}
            weighed[PASSED] = weighed.get(PASSED, Fraction(0)) + 1 - likely
            return weighed
        if match := re.fullmatch(r"meta l4proto (?:\.|(\w+)) th dport vmap @(\w+)", line):
            goal = self.element(match[2]) if match[1] in (None, self.transport) else ""
            return self.statement(goal) if goal else passed
        if match := re.fullmatch(r"(.*)dnat ip6? to meta l4proto \. th dport map @(\w+)", line):
            return (
                {goal.replace(" . ", ":"): Fraction(1)}
                if (goal := self.element(match[2]))
                else passed
            )
        if match := re.fullmatch(r"(.*)dnat ip6? to (\S+)", line):
            assert self.likelihood(match[1]) == 1
            plain = re.fullmatch(r"\[(.*)\](:\d+)|(\d[\d.]*)(:\d+)|(.*)", match[2])
            assert plain
            address, port = plain[1] or plain[3] or plain[5], plain[2] or plain[4]
            return {f"{address}{port or f':{self.port}'}": Fraction(1)}
        if match := re.fullmatch(r"(.*)counter name \w+ reject(?: with tcp reset)?", line):
            likely = self.likelihood(match[1])
            return {REFUSED: likely, PASSED: 1 - likely}
        assert line.startswith("type "), line
        return passed

    def likelihood(self, matches: str) -> Fraction:
        """Of all the matches before a verdict, each of which must be known here."""
        likely = Fraction(1)
        for known, met in (
            (r"ct state new ct status & dnat == 0 ", lambda _: 1),
            (r"meta l4proto \{ tcp, udp \} ", lambda _: 1),
            (r"meta l4proto (\w+) ", lambda m: m[1] == self.transport),
            (r"ip6? daddr \{ (.*?) \} ", lambda m: self.address in m[1].split(", ")),
            (r"numgen random mod (\d+) < (\d+) ", lambda m: Fraction(int(m[2]), int(m[1]))),
        ):
            if match := re.search(known, matches):
                likely *= met(match)
                matches = matches.replace(match[0], "")
        assert matches == ""
        return likely

    def element(self, name: str) -> str:
        for line in self.blocks[name]:
            if match := re.fullmatch(r"(?:(\w+) \. )?(\d+)(?:-(\d+))? : (.*),", line):
                first, last = int(match[2]), int(match[3] or match[2])
                if match[1] in (None, self.transport) and first <= self.port <= last:
                    return match[4]
        return ""


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[ForwardConfig, ...], forward_table.Down]:
    """Forwards that don't overlap, as the config requires, and servers that are down."""
    forwards = []
    for number in range(draw(st.integers(1, 4))):
        first = 100 * (number + 1)
        listen = draw(
            st.sampled_from(
                [
                    (Ports("tcp", first, first),),
                    (Ports("udp", first, first),),
                    (Ports("tcp", first, first), Ports("udp", first, first)),
                    (Ports("tcp", first, first + 9), Ports("udp", first + 3, first + 5)),
                ]
            )
        )
        own = [0] if any(p.first != p.last for p in listen) else [0, 0, 8080]
        names = draw(st.lists(st.sampled_from(SERVERS), min_size=1, max_size=5, unique=True))
        to = tuple(
            ForwardServer(name, draw(st.sampled_from(own)), draw(st.integers(0, 4)))
            for name in names
        )
        names = draw(st.lists(st.sampled_from([u.name for u in UPLINKS]), unique=True))
        down = draw(st.sampled_from(_DOWN))
        forwards.append(ForwardConfig(listen, to, tuple(names), on_down=down))
    known = [
        (server.address, server.port or ports.first)
        for forward in forwards
        for ports in forward.listen
        for server in forward.to
    ]
    return tuple(forwards), tuple(draw(st.lists(st.sampled_from(known), unique=True)))


def expected(
    forwards: tuple[ForwardConfig, ...],
    down: forward_table.Down,
    address: str,
    transport: str,
    port: int,
) -> Likelihoods:
    owner = next(u.name for u in UPLINKS if address in {a.address for a in u.addresses})
    for forward in forwards:
        for ports in forward.listen:
            servers = [s for s in forward.to if (":" in s.address) == (":" in address)]
            here = ports.transport == transport and ports.first <= port <= ports.last
            if not here or not servers or (forward.uplinks and owner not in forward.uplinks):
                continue
            shares: Likelihoods = defaultdict(Fraction)
            for server in servers:
                lost = (server.address, server.port or ports.first) in down
                if lost and forward.on_down == "next":
                    continue
                goal = REFUSED if lost else f"{server.address}:{server.port or port}"
                shares[goal] += server.weight
            total = sum(shares.values()) or Fraction(1)
            found = {goal: weight / total for goal, weight in shares.items() if weight}
            return found or {REFUSED: Fraction(1)}
    return {PASSED: Fraction(1)}


@given(scenes())
def test_every_packet_has_the_fate_that_it_should(
    scene: tuple[tuple[ForwardConfig, ...], forward_table.Down],
) -> None:
    forwards, down = scene
    text = forward_table.render(forwards, UPLINKS, down)
    for address in ADDRESSES:
        for transport in ("tcp", "udp"):
            for port in (100, 104, 109, 110, 200, 300, 303, 400):
                wanted = expected(forwards, down, address, transport, port)
                assert Table(text, address, transport, port).fate() == wanted
                assert told(forwards, down, address, transport, port) == wanted


def told(
    forwards: tuple[ForwardConfig, ...],
    down: forward_table.Down,
    address: str,
    transport: str,
    port: int,
) -> Likelihoods:
    """The same for the lookup of `explain`."""
    found = forward_table.target(forwards, UPLINKS, transport, address, port, down)
    if found is None:
        return {PASSED: Fraction(1)}
    total = sum(server.weight for server in found.servers) + found.refused
    shares = {f"{s.address}:{s.port}": Fraction(s.weight, total) for s in found.servers}
    if found.refused or not found.servers:
        shares[REFUSED] = Fraction(found.refused, total) if total else Fraction(1)
    return shares
