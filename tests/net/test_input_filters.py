"""What is concluded from other programs' packet filters, against what the kernel does with them.

client ── core ── isp-a ── wan0 host: servers on port 53, behind a random ruleset
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ifdefault.kernel import filters
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import Family, Transport
from ifdefault.plan.packet_filter import Packet, dropped
from tests.net.conftest import LabWorld

ADDRESSES: dict[Family, str] = {4: "203.0.113.10", 6: "2001:db8:a::10"}
Probe = tuple[Family, Transport]
Servers = dict[Probe, socket.socket]

PROBES: list[Probe] = [(4, "udp"), (4, "tcp"), (6, "udp"), (6, "tcp")]
_SILENT_S, _ANSWER_S = 0.05, 1.5

NFT = (
    """\
iifname "wan0"; iifname "wan1"; iifname "wan*"; iif "wan0"; iifname { "wan0", "lo" }
iifname != "wan0"; iifname != { "wan1", "lo" }
meta l4proto udp; meta l4proto { tcp, udp }; meta l4proto != tcp; meta l4proto icmp; ip protocol udp
udp dport 53; tcp dport 53; udp dport { 22, 50-60 }; udp dport != 53; tcp dport 1-52; th dport 53
th dport > 100; th dport <= 53; th dport != { 22, 80 }; tcp dport { 80, 443 }; th dport @ports
ip saddr 192.0.2.0/24; ip saddr != 192.0.2.1; ip daddr 203.0.113.10; ip daddr 203.0.113.0/28
ip daddr { 192.0.2.1, 203.0.113.8-203.0.113.12 }; ip6 daddr 2001:db8::/32; ip daddr != 203.0.113.10
meta nfproto ipv4; meta protocol ip6; meta nfproto != ipv6; ct state new; ct state invalid
ct state { established, related }; ct state established,related; ct state new,established
ct state != new; ct status dnat; fib daddr type local; fib daddr type != local
meta pkttype host; meta pkttype { broadcast, multicast }; icmp type echo-request
tcp flags & (fin|syn|rst|ack) == syn; tcp flags syn; tcp flags & (syn|ack) != syn
udp sport 1024-65535; udp sport 53; tcp sport != 53; ct direction original
meta l4proto . th dport { udp . 53, tcp . 80 }; iifname . th dport { "wan0" . 53, "lo" . 22 }
""".replace("\n", "; ")
    .removesuffix("; ")
    .split("; ")
)
VERDICTS = [
    *"accept; drop; reject; return; jump one; goto one; jump two; counter; continue".split("; "),
    "ct state vmap { established : accept, new : jump two }",
    'iifname vmap { "wan0" : drop, "lo" : accept }',
    "th dport vmap { 53 : accept, 80 : drop }",
    "meta l4proto vmap @verdicts",
]
UNCERTAIN = ("ct direction original",)  # not evaluated: nothing may be concluded
IPTABLES = (
    """\
-i wan0; -i wan+; ! -i wan0; -i wan1; -p udp; -p tcp; -p udp --dport 53; -p tcp --dport 53
-p udp --dport 50:60; -p udp ! --dport 53; -p tcp --dport 80; -p udp -m multiport --dports 22,53
-p tcp -m multiport --dports 80,100:200; -m conntrack --ctstate NEW; -p tcp --syn; -p tcp ! --syn
-m conntrack --ctstate RELATED,ESTABLISHED; -m conntrack ! --ctstate NEW; -m state --state NEW
-m addrtype --dst-type LOCAL; -m addrtype ! --dst-type LOCAL; -m pkttype --pkt-type unicast
-m comment --comment "it's -j DROP"; -p udp --sport 1024:65535; -p tcp --sport 53
""".replace("\n", "; ")
    .removesuffix("; ")
    .split("; ")
)
TARGETS = "ACCEPT; DROP; REJECT; RETURN; one; two; LOG; MARK --set-mark 1".split("; ")


def nft_rules(verdicts: list[str]) -> st.SearchStrategy[str]:
    conditions = st.lists(st.sampled_from(NFT), max_size=2)
    rules = st.tuples(conditions, st.sampled_from(verdicts))
    return st.lists(rules.map(lambda rule: " ".join([*rule[0], rule[1]])), max_size=5).map(
        "\n".join
    )


@st.composite
def nft_rulesets(draw: st.DrawFn) -> str:
    leaf = [verdict for verdict in VERDICTS if "one" not in verdict and "two" not in verdict]
    middle = [verdict for verdict in VERDICTS if "one" not in verdict]
    policy, hook = (
        draw(st.sampled_from(["accept", "drop"])),
        draw(st.sampled_from(["input", "prerouting"])),
    )
    return f"""table inet fw {{
    set ports {{ type inet_service; flags interval; elements = {{ 22, 53-55 }}; }}
    map verdicts {{ type inet_proto : verdict; elements = {{ udp : accept, 1 : drop }}; }}
    chain two {{ {draw(nft_rules(leaf))}
    }}
    chain one {{ {draw(nft_rules(middle))}
    }}
    chain base {{ type filter hook {hook} priority 0; policy {policy}; meta l4proto ipv6-icmp accept
    {draw(nft_rules(VERDICTS))}
    }}
}}"""


@st.composite
def iptables_rulesets(draw: st.DrawFn) -> str:
    def rules(chain: str, targets: list[str]) -> list[str]:
        made = draw(
            st.lists(st.tuples(st.sampled_from(IPTABLES), st.sampled_from(targets)), max_size=4)
        )
        return [f"-A {chain} {match} -j {target}" for match, target in made]

    policy = draw(st.sampled_from(["ACCEPT", "DROP"]))
    plain = [target for target in TARGETS if target not in ("one", "two")]
    lines = ["*filter", f":INPUT {policy} [0:0]", ":one - [0:0]", ":two - [0:0]"]
    lines += [*rules("INPUT", TARGETS), *rules("one", [*plain, "two"]), *rules("two", plain)]
    return "\n".join([*lines, "COMMIT", ""])


@contextmanager
def served(world: World) -> Iterator[Servers]:
    """Servers on port 53 of the host."""
    with ExitStack() as stack:
        servers: Servers = {}
        for family, transport in PROBES:
            with world["host"].enter():
                server = stack.enter_context(made(family, transport))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((ADDRESSES[family], 53))
            if transport == "tcp":
                server.listen(64)
            server.setblocking(False)
            servers[family, transport] = server
        yield servers


def made(family: Family, transport: Transport) -> socket.socket:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    return socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)


def reached(
    world: World,
    servers: Servers,
    enough: Callable[[set[Probe]], bool],
) -> set[Probe]:
    """The servers that are reached, once `enough` of them are, or none more for a while."""
    found: set[Probe] = set()
    with ExitStack() as stack:
        clients = {}
        for probe in PROBES:
            with world["client"].enter():
                clients[probe] = client = stack.enter_context(made(*probe))
            client.setblocking(False)
            client.connect_ex((ADDRESSES[probe[0]], 53))
            if probe[1] == "udp":
                client.send(b"x")
        started = time.monotonic()
        while (waited := time.monotonic() - started) < _ANSWER_S:
            found |= {p for p in PROBES if is_reached(p, servers[p], clients[p])}
            if enough(found) and waited > _SILENT_S:
                break
            time.sleep(0.002)
    return found


def is_reached(probe: Probe, server: socket.socket, client: socket.socket) -> bool:
    if probe[1] == "tcp":
        with suppress(BlockingIOError):
            server.accept()[0].close()  # the backlog is limited
        # its SYN is answered; the rest of the handshake may be dropped
        return client.connect_ex((ADDRESSES[probe[0]], 53)) in (0, errno.EISCONN)
    try:
        return server.recv(9) == b"x"
    except BlockingIOError:
        return False


def compare(world: World, servers: Servers) -> tuple[set[Probe], set[Probe]]:
    """What is said to be open under the present ruleset, and what is reached."""
    chains = world["host"].python(filters.read_input_chains)
    open_ = {
        (family, transport)
        for family, transport in PROBES
        if not dropped(chains, Packet("wan0", family, transport, ADDRESSES[family], 53))
    }
    found = reached(world, servers, lambda found: found >= open_)
    return open_, found


def answers(node: Node, address: str) -> bool:
    return node.run(["ping", "-c1", "-W1", address], check=False).returncode == 0


@pytest.fixture
def world(lab_world: LabWorld) -> World:
    world = lab_world("two")
    for address in ADDRESSES.values():
        eventually(partial(answers, world["client"], address), what=f"{address} answers")
    return world


def test_nftables(world: World) -> None:
    with served(world) as servers:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(nft_rulesets())
        def check(ruleset: str) -> None:
            load = ["nft", "-f", "-"]
            loaded = world["host"].run(load, stdin=f"flush ruleset\n{ruleset}", check=False)
            assume(not loaded.returncode)  # two conditions may contradict each other
            said_open, found = compare(world, servers)
            assert found <= said_open, ruleset  # never is a port said to be closed that isn't
            assert found == said_open or any(word in ruleset for word in UNCERTAIN), ruleset

        check()


def test_iptables(world: World) -> None:
    with served(world) as servers:

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(iptables_rulesets())
        def check(ruleset: str) -> None:
            world["host"].run(["iptables-restore"], stdin=ruleset)
            said_open, found = compare(world, servers)
            assert found == said_open, ruleset

        check()
