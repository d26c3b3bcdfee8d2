"""UDP servers bound to no address, which answer from the default's address whatever was asked.

                ┌─ isp-a ── wan0 ┐ 203.0.113.10   <- a naive socket answers from here,
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘ 198.51.100.10  <- also when asked here
"""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest

from ifdefault.lab import ports
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

A, B, C = "203.0.113.10", "198.51.100.10", "192.0.2.10"
NAIVE = ["udp-wildcard", "udp-dual"]
EACH = pytest.mark.parametrize(
    ("client", "target"), [("198.18.1.10", B), ("2001:db8:f:1::10", "2001:db8:b::10")]
)


def _world(lab_world: LabWorld, topology: str = "two", more: str = "") -> World:
    world = lab_world(topology)
    answers.serve(world)
    answers.configure(world, more)
    return world


@EACH
def test_large_transfers_in_one_flow(lab_world: LabWorld, client: str, target: str) -> None:
    world = _world(lab_world)
    answers.assert_none_answered(world, NAIVE, [target])
    answers.apply(world)
    before = world.misrouted()
    with closing(answers.udp_socket(world["client"], client)) as sock:
        # the larger ones are fragments on the wire
        assert answers.exchange(sock, target, ports.UDP_WILDCARD, 4000, 1200) == 4000
        assert answers.exchange(sock, target, ports.UDP_WILDCARD, 200, 4000) == 200
    assert world.misrouted() == before


def test_two_addresses_of_one_uplink(lab_world: LabWorld) -> None:
    world = _world(lab_world, "many-addresses")
    others = ["203.0.113.11", "203.0.113.129", "2001:db8:a::11", "2001:db8:a:1::10"]
    tallies = answers.ask(world, NAIVE, others, count=4)
    assert any(tally.wrong == tally.tried for tally in tallies)  # from another address
    answers.apply(world)
    answers.assert_answered(world, NAIVE, others)


def test_a_client_in_the_other_uplinks_prefix(lab_world: LabWorld) -> None:
    world = _world(lab_world, "neighbour")
    of_b = [B, "2001:db8:b::10"]
    answers.assert_none_answered(world, NAIVE, of_b, node="neighbour")
    answers.apply(world)
    answers.assert_answered(world, node="neighbour")


def test_a_client_under_a_specific_route(lab_world: LabWorld) -> None:
    """Its replies would have B's address, those of all others A's."""
    world = _world(lab_world)
    world["host"].ip(
        "route add 198.18.2.0/24 via 198.51.100.1\nroute add 2001:db8:f:2::/64 via 2001:db8:b::1\n"
    )
    of_a = [A, "2001:db8:a::10"]
    tallies = answers.ask(world, NAIVE, of_a, count=8, timeout_s=answers.BRIEF_S)
    assert {tally.answered for tally in tallies} == {4}  # the clients elsewhere
    answers.apply(world)
    answers.assert_answered(world)


def test_a_socket_bound_to_an_address_is_let_alone(lab_world: LabWorld) -> None:
    """Even with a wildcard socket on the same port: it gets the packets to its address."""
    world = _world(lab_world)
    host = world["host"]
    with ExitStack() as stack:
        naive = stack.enter_context(closing(answers.udp_socket(host, "0.0.0.0", 9000)))
        bound = stack.enter_context(closing(answers.udp_socket(host, B, 9000)))
        client = stack.enter_context(closing(answers.udp_socket(world["client"], "198.18.1.10")))
        answers.apply(world)
        assert 9000 in answers.status(world)["redirected_udp"]
        client.sendto(b"to B", (B, 9000))
        assert bound.recv(64) == b"to B"
        client.sendto(b"to A", (A, 9000))
        assert naive.recv(64) == b"to A"


@pytest.mark.parametrize(
    ("setting", "spared"),
    [('"off"', NAIVE), (f"[{ports.UDP_WILDCARD}]", ["udp-dual"])],
)
def test_ports_that_are_not_redirected_fail_and_are_counted(
    lab_world: LabWorld, setting: str, spared: list[str]
) -> None:
    """A port that answers from A's address when B's was asked is right for nobody."""
    world = _world(lab_world, more=f"[host]\nudp_wildcard = {setting}")
    answers.apply(world)
    tallies = answers.ask(world, NAIVE, [B, "2001:db8:b::10"], count=4, timeout_s=1.0)
    assert {tally.kind for tally in tallies if not tally.answered} == set(spared)
    assert {tally.kind for tally in tallies if tally.ok} == set(NAIVE) - set(spared)
    redirected = [] if setting == '"off"' else [ports.UDP_WILDCARD]
    assert answers.status(world)["redirected_udp"] == redirected


def test_dhcp_and_clients_ports_are_never_redirected(lab_world: LabWorld) -> None:
    world = _world(lab_world)
    with ExitStack() as stack:
        for port in (67, 68, 5353, 0, 9000):  # 0: a port that the kernel picks, as for a client
            sock = answers.udp_socket(world["host"], "0.0.0.0", port)
            stack.enter_context(closing(sock))
        answers.apply(world)
        redirected = set(answers.status(world)["redirected_udp"])
    assert redirected == {ports.UDP_PKTINFO, ports.UDP_WILDCARD, ports.UDP_DUAL, 9000}


@pytest.mark.parametrize("change", ["the default moves", "its uplink goes"])
def test_running_flows_follow(lab_world: LabWorld, change: str) -> None:
    """Exactly those are forgotten whose answers would come from another address now: none while
    the normal default moves, since answers keep to the first uplink's address."""
    world = _world(lab_world, "three")
    client = world["client"]
    # a client whose answers come from B's address in any case
    world["host"].ip("route add 198.18.2.0/24 via 198.51.100.1\n")
    answers.apply(world)
    with ExitStack() as stack:
        flows = {
            (source, target): stack.enter_context(closing(answers.udp_socket(client, source)))
            for source in ("198.18.1.10", "198.18.2.10")
            for target in (C, B)
        }
        for (_, target), sock in flows.items():
            assert answers.exchange(sock, target, ports.UDP_WILDCARD, 50) == 50
            assert answers.exchange(sock, target, ports.UDP_BOUND, 50) == 50
        was = _flows(world)
        moves = change == "the default moves"
        text = world.topology.config
        without_a = text[text.index("[uplink.isp-b]") :]
        reranked = text.replace('interface = "wan0"', 'interface = "wan0"\nrank = 1')
        world.config.write_text(reranked if moves else without_a)
        answers.apply(world)
        stay = {
            key for key in was if moves or key[0] == "198.18.2.10" or key[2] != ports.UDP_WILDCARD
        }
        assert {key for key, id_ in _flows(world).items() if was[key] == id_} == stay
        before = world.misrouted()
        for (_, target), sock in flows.items():
            assert answers.exchange(sock, target, ports.UDP_WILDCARD, 50) == 50
            assert answers.exchange(sock, target, ports.UDP_BOUND, 50) == 50
        assert world.misrouted() == before


def test_a_flow_that_hangs_is_answered_once_we_apply(lab_world: LabWorld) -> None:
    """If the host already tracked connections, the flow is tracked without a redirect."""
    world = _world(lab_world)
    track = "type filter hook input priority 0; ct state new counter"
    world["host"].nft(f"table inet own {{ chain input {{ {track}\n}}\n}}\n")
    with closing(answers.udp_socket(world["client"], "198.18.1.10")) as sock:
        assert not answers.answered(sock, B, ports.UDP_WILDCARD)
        answers.apply(world)
        eventually(lambda: answers.answered(sock, B, ports.UDP_WILDCARD))


def _flows(world: World) -> dict[tuple[str, str, int], str]:
    """The id of each tracked UDP flow, by client, destination and port."""
    listing = world["host"].run(["conntrack", "-L", "-p", "udp", "-o", "id"]).stdout
    found = {}
    for line in listing.splitlines():
        words = [word.partition("=") for word in line.split()]
        first: dict[str, str] = {}
        for key, _, value in words:
            first.setdefault(key, value)
        id_ = {key: value for key, _, value in words}["id"]
        found[first["src"], first["dst"], int(first["dport"])] = id_
    return found
