"""The watcher tells what matters, once, and nothing of the noise.

core ── isp-a ── wan0 host lan0 ── content     (topology "one"; only the host is watched)

Where nothing is to be told, something that is follows it and must come alone.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterator
from select import select

import pytest

from ifdefault.kernel import sysctl
from ifdefault.kernel.netlink import Netlink, attribute
from ifdefault.kernel.perform import Performer, resolve_neighbour
from ifdefault.kernel.read import read_facts
from ifdefault.kernel.uapi.netlink import NLM_F_CREATE
from ifdefault.kernel.uapi.rtnetlink import IFA_LOCAL, RTM_NEWADDR, RTM_NEWLINK
from ifdefault.kernel.watch import Watch
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.kernel import (
    NFT_TABLE,
    PROTOCOL,
    AddRule,
    DeleteRoute,
    DeleteRule,
    Hop,
    LoadNft,
    Operation,
    PutRoute,
    Route,
    Rule,
    SetGroup,
)
from ifdefault.model.kernel_events import (
    KernelChange,
    LinkChanged,
    NeighbourChanged,
    ObjectChanged,
    Overrun,
)
from ifdefault.plan.originals import indexes
from tests.net.conftest import LabWorld

MARKERS = (f"rule add pref {n} lookup 7 protocol 171\n" for n in itertools.count(200))
MARKER = ObjectChanged("rule", ours=True)
GATEWAY, MAC = "203.0.113.77", "02:00:00:00:00:77"
TABLE = "table inet {} {{ chain c {{ }}; }}"


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    world = lab_world("one")
    # duplicate address detection would change addresses meanwhile
    eventually(lambda: "tentative" not in world["host"].run(["ip", "address"]).stdout)
    return world


@pytest.fixture
def host(world: World) -> Node:
    return world["host"]


@pytest.fixture
def watch(host: Node) -> Iterator[Watch]:
    with host.python(Watch) as watch:
        yield watch


def told(watch: Watch, until: KernelChange) -> list[KernelChange]:
    """The events up to this one, waited for like the engine does."""
    found: list[KernelChange] = []

    def seen() -> bool:
        ready, _, _ = select(watch.sockets, [], [], PATIENCE_S)
        assert ready, f"{until} never came; only {found}"
        found.extend(watch.read())
        return until in found

    eventually(seen)
    return found


def told_of(watch: Watch, host: Node, lines: str) -> list[KernelChange]:
    """The events that these `ip` commands cause."""
    host.ip(lines + next(MARKERS))
    return [event for event in told(watch, MARKER) if event != MARKER]


def index(host: Node, dev: str) -> int:
    return host.python(lambda: socket.if_nametoindex(dev))


def test_nothing_happens(watch: Watch) -> None:
    assert watch.read() == []


def test_links(watch: Watch, host: Node) -> None:
    wan0 = index(host, "wan0")
    assert LinkChanged("wan0", wan0) in told_of(watch, host, "link set wan0 down\n")
    host.ip("link set wan0 up\n")
    up = LinkChanged("wan0", wan0, up=True, carrier=True)
    assert up in told(watch, up)
    grouped = told_of(watch, host, "link set wan0 group 171\n")
    # addresses of a link that has just come up may have news of their own
    assert [event for event in grouped if isinstance(event, LinkChanged)] == [up]


def test_carrier(watch: Watch, world: World) -> None:
    wan0 = index(world["host"], "wan0")
    world["isp-a"].ip("link set cust0 down\n")
    lost = LinkChanged("wan0", wan0, up=True, carrier=False)
    assert lost in told(watch, lost)


def test_a_link_comes_is_renamed_and_goes(watch: Watch, host: Node) -> None:
    came = told_of(watch, host, "link add spare0 type veth peer name spare1\n")
    number = index(host, "spare0")
    assert LinkChanged("spare0", number) in came
    assert told_of(watch, host, "link set spare0 name spare7\n") == [LinkChanged("spare7", number)]
    gone = told_of(watch, host, "link del spare7\n")
    assert LinkChanged("spare7", number, gone=True) in gone


def test_the_last_word_on_a_link_is_the_last(watch: Watch, host: Node) -> None:
    wan0 = index(host, "wan0")
    lines = "link set wan0 down\n", "link set wan0 up\n"
    events = told_of(watch, host, "".join(lines) * 3 + lines[0])
    of_wan0 = [event for event in events if isinstance(event, LinkChanged) and event.index == wan0]
    assert any(event.up for event in of_wan0)
    assert not of_wan0[-1].up
    assert len(of_wan0) == len(set(of_wan0))


def test_a_link_that_changes_nothing_is_no_news(watch: Watch, host: Node) -> None:
    assert told_of(watch, host, "link set wan0 alias news\nlink set wan0 txqueuelen 99\n") == []


def test_all_routes_are_news_if_the_kernel_refuses_the_filter(watch: Watch, host: Node) -> None:
    """As it does if that would take more than net.core.optmem_max. Before Linux 6.8 it was 20480,
    and no sysctl of network namespaces."""
    assert not watch.keep_tables(frozenset({254}))
    assert told_of(watch, host, "route add 10.8.3.0/24 dev wan0 table 1500\n") == []
    if host.python(lambda: sysctl.read("net/core/optmem_max")):
        host.sysctl("net.core.optmem_max", 20480)
    assert watch.keep_tables(frozenset(range(1000, 2000)))
    news = ObjectChanged("route")
    assert told_of(watch, host, "route add 10.8.4.0/24 dev wan0 table 1500\n") == [news]
    assert watch.keep_tables(frozenset({254, 77}))
    assert told_of(watch, host, "route add 10.8.5.0/24 dev wan0 table 1500\n") == []


def test_a_wireless_event_is_no_news(watch: Watch, host: Node) -> None:
    """It is a link message with only a name; no driver here sends any."""
    head = struct.pack("=BBHiII", 0, 0, 1, index(host, "wan0"), 0x11043, 0)
    event = head + attribute(3, b"wan0\0") + attribute(11, bytes(8))
    assert watch._decode_route(RTM_NEWLINK, event) is None


def test_a_bridge_port_that_leaves_is_no_link_that_goes(watch: Watch, host: Node) -> None:
    told_of(watch, host, "link add br9 type bridge\nlink set lan0 master br9\n")
    events = told_of(watch, host, "link set lan0 nomaster\n")
    assert not any(isinstance(event, LinkChanged) and event.gone for event in events)


def test_addresses(watch: Watch, host: Node) -> None:
    assert ObjectChanged("address") in told_of(
        watch, host, "address add 203.0.113.99/24 dev wan0\n"
    )
    assert ObjectChanged("address") in told_of(
        watch, host, "address del 203.0.113.99/24 dev wan0\n"
    )


def test_routes_that_come_with_an_address_are_no_news(watch: Watch, host: Node) -> None:
    lines = "address add 203.0.113.98/32 dev wan0\n"
    assert told_of(watch, host, lines) == [ObjectChanged("address")]


def test_a_lifetime_that_is_prolonged_is_no_news(watch: Watch, host: Node) -> None:
    host.ip("address add 2001:db8:a::99/64 dev wan0 nodad valid_lft 900 preferred_lft 900\n")
    told(watch, ObjectChanged("address"))
    told_of(watch, host, "")
    longer = "address change 2001:db8:a::99/64 dev wan0 valid_lft 950 preferred_lft 950\n"
    assert ObjectChanged("address") not in told_of(watch, host, longer)
    old = "address change 2001:db8:a::99/64 dev wan0 valid_lft 950 preferred_lft 0\n"
    assert ObjectChanged("address") in told_of(watch, host, old)


@pytest.mark.parametrize("ours", [False, True])
def test_routes_rules_and_nexthops(watch: Watch, host: Node, ours: bool) -> None:
    protocol = "protocol 171" if ours else "protocol 99"
    route = f"route {{}} 10.9.0.0/16 via 203.0.113.1 table 7 {protocol}\n"
    rule = f"rule {{}} pref 101 lookup 7 {protocol}\n"
    nexthop = f"nexthop {{}} id 7 via 203.0.113.1 dev wan0 {protocol}\n"
    for verb in ("add", "del"):
        host.ip("".join(line.format(verb) for line in (route, rule)))
        host.ip(nexthop.format(verb) if verb == "add" else "nexthop del id 7\n")
        kinds = ("route", "rule", "nexthop")
        wanted = {ObjectChanged(kind, ours) for kind in kinds}  # type: ignore[arg-type]
        found: set[KernelChange] = set()
        while not wanted <= found:
            found.update(told(watch, ObjectChanged("nexthop", ours)))
        assert found == wanted


def test_ipv6_routes_and_rules(watch: Watch, host: Node) -> None:
    host.ip("route add 2001:db8:9::/48 via 2001:db8:a::1 protocol 171\n")
    told(watch, ObjectChanged("route", ours=True))
    host.ip("rule add pref 102 lookup 7 protocol 99\n", "-6")
    told(watch, ObjectChanged("rule"))


@pytest.mark.parametrize(("table", "ours"), [("ifdefault", True), ("ifdefault2", False)])
def test_rulesets(watch: Watch, host: Node, table: str, ours: bool) -> None:
    of_table = f"add rule inet {table} c accept", f"delete table inet {table}"
    for text in (TABLE.format(table), *of_table):
        host.nft(text)
        assert told(watch, ObjectChanged("nft", ours)) == [ObjectChanged("nft", ours)]


def test_neighbours(watch: Watch, host: Node) -> None:
    def becomes(state: str) -> list[KernelChange]:
        return told_of(watch, host, f"neighbour replace {GATEWAY} dev wan0 {state}\n")

    there = NeighbourChanged("wan0", GATEWAY, True, MAC)
    assert becomes(f"lladdr {MAC} nud reachable") == [there]
    assert becomes(f"lladdr {MAC} nud stale") == []
    assert becomes("nud failed") == [NeighbourChanged("wan0", GATEWAY, False)]
    assert becomes("nud incomplete") == []
    assert becomes("nud failed") == []
    moved = MAC.replace("77", "78")
    assert becomes(f"lladdr {moved} nud reachable") == [
        NeighbourChanged("wan0", GATEWAY, True, moved)
    ]
    assert becomes("nud incomplete") == []
    gone = told_of(watch, host, f"neighbour del {GATEWAY} dev wan0\n")
    assert gone[-1] == NeighbourChanged("wan0", GATEWAY, None)


@pytest.mark.parametrize("address", ["203.0.113.77", "2001:db8:a::77"])
def test_a_neighbour_that_doesnt_answer(watch: Watch, host: Node, address: str) -> None:
    family = "ipv6" if ":" in address else "ipv4"
    host.sysctl(f"net.{family}.neigh.wan0.retrans_time_ms", 20)
    host.python(lambda: resolve_neighbour(address, "wan0"))
    silent = NeighbourChanged("wan0", address, False)
    assert silent in told(watch, silent)


def test_neighbours_elsewhere_are_passed_over(watch: Watch, host: Node) -> None:
    watch.interfaces = frozenset({"lan0"})
    line = f"neighbour replace {GATEWAY} dev {{}} lladdr {MAC} nud reachable\n"
    assert told_of(watch, host, line.format("wan0")) == []
    assert told_of(watch, host, line.format("lan0")) == [
        NeighbourChanged("lan0", GATEWAY, True, MAC)
    ]


def test_thousands_of_foreign_routes_are_few_events(watch: Watch, host: Node) -> None:
    lines = (f"route add 10.{n >> 8}.{n & 255}.0/24 via 203.0.113.1\n" for n in range(5000))
    host.ip("".join(lines))
    found = told_of(watch, host, "")
    assert set(found) == {ObjectChanged("route")}
    assert len(found) <= 10  # one for each read


def test_routes_of_tables_that_nobody_looks_up_are_no_news(watch: Watch, host: Node) -> None:
    assert not watch.keep_tables(frozenset({254, 77, 4242}))
    for n, table in enumerate((78, 252, 4243, 1 << 24)):
        for prefix in (f"10.7.{n}.0/24", f"2001:db8:{n:x}::/48"):
            assert told_of(watch, host, f"route add {prefix} dev wan0 table {table}\n") == []
    news = ObjectChanged("route")
    for table in (254, 77, 4242):
        assert told_of(watch, host, f"route add 10.8.0.0/24 dev wan0 table {table}\n") == [news]
        assert told_of(watch, host, f"route add fd00:9::/48 dev wan0 table {table}\n") == [news]
    ours = f"route add 10.8.1.0/24 dev wan0 table 4243 protocol {PROTOCOL}\n"
    assert told_of(watch, host, ours) == [ObjectChanged("route", ours=True)]
    assert watch.keep_tables(frozenset({254, 4243}))  # these may have changed meanwhile
    assert told_of(watch, host, "route add 10.8.2.0/24 dev wan0 table 4243\n") == [news]
    assert told_of(watch, host, "route add 10.8.2.0/24 dev wan0 table 77\n") == []


def test_an_overrun_is_told_and_what_changed_meanwhile(watch: Watch, host: Node) -> None:
    for sock in watch.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lines = "".join(f"route add 10.9.{n}.0/24 via 203.0.113.1\n" for n in range(250))
    host.ip(lines + "link set lan0 down\n")
    found = told(watch, Overrun())
    assert found.count(Overrun()) == 1
    assert LinkChanged("lan0", index(host, "lan0")) in found
    for sock in watch.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    watch.read()
    assert told_of(watch, host, "link set lan0 up\n")  # it goes on


# --- our own changes ----------------------------------------------------------------------


ROUTE = Route(4, table=7, dst="10.9.0.0/16", hops=(Hop("wan0", "203.0.113.1"),), protocol=PROTOCOL)
RULE = Rule(4, priority=103, table=7, protocol=PROTOCOL)
OWN: list[list[Operation]] = [
    [PutRoute(ROUTE), DeleteRoute(ROUTE)],
    [AddRule(RULE), DeleteRule(RULE)],
    [LoadNft(NFT_TABLE, "table inet ifdefault {\n}\n"), LoadNft(NFT_TABLE, "")],
]


def performed(host: Node, operations: list[Operation]) -> frozenset[int]:
    """The netlink ports that performed it."""

    def perform() -> frozenset[int]:
        with Performer(indexes(read_facts())) as performer:
            for operation in operations:
                performer.perform(operation)
            return performer.ports

    return host.python(perform)


@pytest.mark.parametrize("operations", OWN)
def test_what_we_change_ourselves_is_no_news(
    watch: Watch, host: Node, operations: list[Operation]
) -> None:
    watch.own_ports = performed(host, operations)
    host.nft(TABLE.format("stranger"))
    host.ip(next(MARKERS))
    found = told(watch, MARKER)
    while ObjectChanged("nft") not in found:
        found += told(watch, ObjectChanged("nft"))
    assert set(found) == {MARKER, ObjectChanged("nft")}


@pytest.mark.parametrize("operations", OWN)
def test_what_a_stranger_changes_likewise_is(
    watch: Watch, host: Node, operations: list[Operation]
) -> None:
    performed(host, operations)
    found: set[KernelChange] = set()
    while not any(isinstance(event, ObjectChanged) and event.ours for event in found):
        select(watch.sockets, [], [], PATIENCE_S)
        found.update(watch.read())
    assert len(found) == 1


def test_the_group_that_we_give_a_link_comes_from_the_kernel(watch: Watch, host: Node) -> None:
    watch.own_ports = performed(host, [SetGroup("wan0", 171, 0)])
    up = LinkChanged("wan0", index(host, "wan0"), up=True, carrier=True)
    assert told_of(watch, host, "") == [up]


def test_what_is_passed_over_is_remembered(watch: Watch, host: Node) -> None:
    """The address is known already when another program extends its lifetime."""
    line = "address change 203.0.113.97/24 dev wan0 valid_lft 900 preferred_lft 900\n"

    def add() -> frozenset[int]:
        address = attribute(IFA_LOCAL, socket.inet_aton("203.0.113.97"))
        head = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, socket.if_nametoindex("wan0"))
        with Netlink() as netlink:
            netlink.change(RTM_NEWADDR, head + address, NLM_F_CREATE)
            return frozenset({netlink.port})

    watch.own_ports = host.python(add)
    assert told_of(watch, host, "") == []
    assert told_of(watch, host, line) == []
    assert told_of(watch, host, "address del 203.0.113.97/24 dev wan0\n") == [
        ObjectChanged("address")
    ]
