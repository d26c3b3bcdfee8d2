"""The self-check says so whenever the kernel doesn't do what is meant, and only then.

         ┌─ isp-a ── wan0 ┐
client ──┤                ├ host lan0, vpn0
         └─ isp-b ── wan1 ┘

Other programs' rules and routes of any shape are added, then ours. What the kernel does is asked by
`ip route get`, for packets of this test's own: it knows nothing of the program's questions.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from ifdefault.config import read as read_config
from ifdefault.host.observe import ask
from ifdefault.host.status import find_astray
from ifdefault.host.store import Store
from ifdefault.host.transaction import converge, prepare_config, prepare_down
from ifdefault.kernel.read import read_facts
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.flow import Answers, Question
from ifdefault.model.kernel import Facts
from ifdefault.plan import self_check
from ifdefault.plan.lookup import Fib
from ifdefault.plan.prepare import Prepared
from tests.net import watched
from tests.net.conftest import LabWorld

WORLDS = 60
CLIENTS = 3
OWN = {
    4: {"203.0.113.10": "wan0", "198.51.100.10": "wan1"},
    6: {"2001:db8:a::10": "wan0", "2001:db8:b::10": "wan1"},
}
GATEWAYS = {
    4: {"wan0": "203.0.113.1", "wan1": "198.51.100.1"},
    6: {"wan0": "2001:db8:a::1", "wan1": "2001:db8:b::1"},
}
HALVES = {4: ("0.0.0.0/1", "128.0.0.0/1"), 6: ("2000::/4", "3000::/4")}
PRIORITIES = (1, 45, 70, 100, 130, 4000, 4999, 5210, 20000, 32764, 32765)
VPN_UP = """
link add vpn0 type veth peer name vpn1
link set vpn0 up
link set vpn1 up
addr add 10.99.0.1/24 dev vpn0
"""


def test_every_foreign_world_is_judged_right(lab_world: LabWorld) -> None:
    world = lab_world("two")
    verdicts = world["host"].python(lambda: list(judge_all(world)))
    assert [verdict for verdict in verdicts if verdict.fault] == []
    kinds = [verdict.kind for verdict in verdicts]
    assert kinds.count("refused") < WORLDS / 2, "most worlds were tried"
    assert kinds.count("astray") >= 5, "some go astray"
    assert kinds.count("as meant") >= 5, "and some don't"


def test_the_daemon_keeps_what_it_can_and_names_the_rest(lab_world: LabWorld) -> None:
    """Table local is moved behind our rules; then another program routes by its own table."""
    world = lab_world("two")
    watched.start(world)
    move = "ip rule add pref 32765 lookup local; ip rule del pref 0"
    world["host"].run(["sh", "-e", "-c", move])
    eventually(lambda: answers_ping(world, "203.0.113.10"), what="the host hears its clients")
    eventually(lambda: answers_ping(world, "198.51.100.10"), what="on both uplinks")

    shorewall = "default via 198.51.100.1 dev wan1 table 7001"
    world["host"].run(["ip", "route", "add", *shorewall.split()])
    world["host"].run(["ip", "rule", "add", "pref", "32764", "lookup", "7001"])
    eventually(lambda: watched.events(world, "self-check"), what="it is named")
    [began] = watched.events(world, "self-check")
    assert began.startswith("uplink.isp-a: new IPv4 connections are meant to leave by wan0, but")
    assert "ip rule pref 32764 from all lookup 7001" in began
    shown = world.ifdefault("status")
    assert (shown.returncode, began.partition(":")[0] in shown.stdout) == (1, True)
    world["host"].run(["ip", "rule", "del", "pref", "32764", "lookup", "7001"])
    eventually(lambda: len(watched.events(world, "self-check")) == 2, what="it is over")
    assert watched.events(world, "self-check")[1].startswith("over: uplink.isp-a: ")
    eventually(lambda: world.ifdefault("status").returncode == 0, what="and shown no more")


def answers_ping(world: World, address: str) -> bool:
    done = world["client"].run(["ping", "-nqc1", "-W1", address], check=False)
    return done.returncode == 0


@dataclass(frozen=True)
class Verdict:
    seed: int
    kind: str  # refused, astray, as meant
    foreign: tuple[str, ...]
    fault: str = ""


def judge_all(world: World) -> Iterator[Verdict]:
    batch(4, *VPN_UP.strip().splitlines())
    batch(6, "addr add fd99::1/64 dev vpn0 nodad")
    was = facts_text()
    for seed in range(WORLDS):
        rng = random.Random(seed)
        family = rng.choice((4, 6))
        lines = tuple(foreign_world(rng, family))
        batch(family, *(line for line, _ in lines))
        try:
            yield judge(world, seed, family, tuple(line for line, _ in lines))
        finally:
            store = Store(world.dir / "state")
            with store.lock():
                converge(prepare_down(store), store)
            batch(family, *(undo for _, undo in reversed(lines)))
        assert facts_text() == was, (seed, lines)


def judge(world: World, seed: int, family: int, foreign: tuple[str, ...]) -> Verdict:
    prepared = apply(world)
    if prepared is None:
        return Verdict(seed, "refused", foreign)
    predicted = {q for q, reply in predict(prepared) if not q.is_met(reply)}
    now = prepare_config(read_config(world.config), Store(world.dir / "state"))
    if now.operations:
        return Verdict(seed, "", foreign, f"not as desired: {now.operations}")
    unmet = {q for q, reply in ask(now.questions, now.facts) if not q.is_met(reply)}
    problems = [p for p in find_astray(now) if "meant" in p.what]
    wrong = [p for p in packets(family, now.facts) if not goes_as_meant(p, now)]
    fault = ""
    if unmet != predicted:
        fault = f"predicted {predicted - unmet}, not predicted {unmet - predicted}"
    elif bool(unmet) != bool(problems):
        fault = f"{problems} of {unmet}"
    elif wrong and not problems:
        fault = f"nothing is said of {wrong}"
    elif untrue := [q for q in unmet if goes_as_meant(packet_of(q), now)]:
        fault = f"{untrue} go as they are meant to"
    elif any("that ifdefault can see" in p.what for p in problems):
        fault = f"unexplained: {problems}"
    return Verdict(seed, "astray" if unmet else "as meant", foreign, fault)


def apply(world: World) -> Prepared | None:
    """Apply without undoing: what is wrong shall be seen. None if it is refused."""
    store = Store(world.dir / "state")
    with store.lock():
        prepared = prepare_config(read_config(world.config), store)
        if any(p.blocks and not p.warning for p in prepared.problems):
            return None
        outcome = converge(prepared, store)
    assert outcome.refused == ()
    return prepared


def predict(prepared: Prepared) -> Answers:
    then = self_check.predicted(prepared.config, prepared.facts, prepared.desired)
    return self_check.ask(Fib.of(then), prepared.questions)


# --- what the kernel does, as ip route get tells it -----------------------------------------


@dataclass(frozen=True)
class Packet:
    """`dev`: where it is meant to go, "" for this host; "primary": any but the other uplink."""

    dst: str
    src: str = ""
    iif: str = ""
    dev: str = ""


def packets(family: int, facts: Facts) -> Iterator[Packet]:
    outside = (client for client in far(family) if not in_specific(family, facts, client))
    clients = tuple(itertools.islice(outside, CLIENTS))
    for address, dev in OWN[family].items():
        for client in clients:
            yield Packet(client, address, dev=dev)
            yield Packet(address, client, iif=dev)
        for other in OWN[family]:
            yield Packet(other, address)
    for client in clients:
        yield Packet(client, dev="primary")


def far(family: int) -> Iterator[str]:
    rng = random.Random(99)
    while True:
        if family == 4:
            yield f"{rng.randrange(11, 99)}.{rng.randrange(256)}.7.7"
            yield f"{rng.randrange(130, 160)}.{rng.randrange(256)}.7.7"
        else:
            yield f"{rng.randrange(0x2100, 0x2FFF):x}::{rng.randrange(1, 0xFFFF):x}"
            yield f"{rng.randrange(0x3000, 0x3FFE):x}::{rng.randrange(1, 0xFFFF):x}"


def in_specific(family: int, facts: Facts, client: str) -> bool:
    """Whether a route as specific as an administrator's leads there."""
    from ipaddress import ip_address, ip_network

    networks = (
        ip_network(route.dst)
        for route in facts.routes
        if route.family == family and route.dst != "default"
    )
    return any(n.prefixlen > 7 and ip_address(client) in n for n in networks)


def packet_of(question: Question) -> Packet:
    flow = question.flow
    dev = "primary" if question.intent == "outgoing" else question.dev
    return Packet(flow.dst, flow.src, flow.iif, dev)


def goes_as_meant(packet: Packet, now: Prepared) -> bool:
    words = ["ip", "-j", "route", "get", packet.dst, "ipproto", "tcp"]
    for word, value in (("from", packet.src), ("iif", packet.iif)):
        words += [word, value] if value else []
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    [found] = json.loads(done.stdout) if done.returncode == 0 else [{}]
    kind, dev, via = found.get("type", "unicast"), found.get("dev"), found.get("gateway")
    if not packet.dev:
        return bool(kind == "local")
    if kind != "unicast":
        return False
    if packet.dev != "primary":
        return bool(dev == packet.dev) and via == GATEWAYS[family_of(packet)][packet.dev]
    if dev not in ("wan0", "wan1"):
        return dev is not None  # a VPN
    primary = next(u for u in now.uplinks if u.interface == dev)
    return primary.name == "isp-a" and bool(found.get("table") == str(primary.table))


def family_of(packet: Packet) -> int:
    return 6 if ":" in packet.dst else 4


# --- foreign worlds -------------------------------------------------------------------------


def foreign_world(rng: random.Random, family: int) -> Iterator[tuple[str, str]]:
    """Commands of `ip -batch`, each with the one that undoes it."""
    if rng.random() < 0.15:
        place = rng.choice((150, 6000, 32763))
        yield f"rule add pref {place} lookup local", f"rule del pref {place} lookup local"
        yield "rule del pref 0", "rule add pref 0 lookup local proto kernel"
    if rng.random() < 0.25:
        kind = rng.choice(("blackhole", "unreachable", "prohibit"))
        route = f"{kind} default metric 4000000"
        yield f"route add {route}", f"route del {route}"
    for table in (7001, 7002):
        for route in routes(rng, family, table):
            yield f"route add {route}", f"route del {route}"
    for priority in rng.sample(PRIORITIES, rng.randrange(4)):
        rule = foreign_rule(rng, family, priority)
        yield f"rule add {rule}", f"rule del {rule}"


def routes(rng: random.Random, family: int, table: int) -> Iterator[str]:
    ways = ["dev vpn0", *(f"via {via} dev {dev}" for dev, via in GATEWAYS[family].items())]
    first, second = HALVES[family]
    specific = "10.20.0.0/16" if family == 4 else "fd20::/32"
    way = rng.choice(ways)
    match rng.randrange(6):
        case 0:
            yield f"default {way} table {table}"
        case 1:
            yield f"{first} {way} table {table}"
            yield f"{second} {rng.choice(ways)} table {table}"
        case 2:
            yield f"{rng.choice(('blackhole', 'unreachable'))} default table {table}"
            yield f"{specific} dev vpn0 table {table}"
        case 3:
            yield f"{specific} dev vpn0 table {table}"
        case 4:
            yield f"{first} {way} table {table}"


def foreign_rule(rng: random.Random, family: int, priority: int) -> str:
    words = [f"pref {priority}"]
    selector = rng.randrange(7)
    if selector == 1:
        words.insert(0, "not")
        words.append(f"fwmark {rng.choice(('0x1bd00', '51820'))}")
    elif selector == 2:
        words.append(f"from {rng.choice(list(OWN[family]))}")
    elif selector == 3:
        words.append(f"to {rng.choice(HALVES[family])}")
    elif selector == 4:
        words.append("fwmark 0x80000/0xff0000")
    elif selector == 5:
        words.append(f"iif {rng.choice(('lan0', 'wan0', 'lo'))}")
    if rng.random() < 0.12:
        return " ".join([*words, rng.choice(("blackhole", "unreachable", "prohibit"))])
    words.append(f"lookup {rng.choice((7001, 7001, 7002, 'main'))}")
    if rng.random() < 0.3:
        words.append("suppress_prefixlength 0")
    return " ".join(words)


def batch(family: int, *lines: str) -> None:
    text = "\n".join(lines)
    subprocess.run(["ip", f"-{family}", "-batch", "-"], input=text, text=True, check=True)


def facts_text() -> str:
    facts = read_facts()
    return "\n".join(map(str, (*facts.rules, *facts.routes)))
