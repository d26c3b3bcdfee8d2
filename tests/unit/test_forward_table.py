"""The table of [[forward]] services: its text, the checked servers, the server of a connection."""

from __future__ import annotations

import pytest

from ifdefault.model.config import ForwardConfig, ForwardServer, Ports, Transport
from ifdefault.model.kernel import Address, Uplink
from ifdefault.plan import forward_table
from ifdefault.plan.forward_table import Backend, CheckedServer


def uplink(number: int, *addresses: str) -> Uplink:
    return Uplink(
        name=f"isp-{number}",
        number=number,
        interface=f"wan{number}",
        table=1000 + number,
        arrival_mark=number << 24,
        outgoing_mark=(number | 32) << 24,
        mark_mask=0x3F000000,
        addresses=tuple(Address(6 if ":" in a else 4, f"wan{number}", a, 24) for a in addresses),
    )


def ports(text: str) -> Ports:
    transport, _, numbers = text.partition(":")
    first, _, last = numbers.partition("-")
    kind: Transport = "udp" if transport == "udp" else "tcp"
    return Ports(kind, int(first), int(last or first))


def forward(listen: str, *to: str | ForwardServer, **keys: object) -> ForwardConfig:
    servers = tuple(ForwardServer(s) if isinstance(s, str) else s for s in to)
    return ForwardConfig(tuple(map(ports, listen.split())), servers, **keys)  # type: ignore[arg-type]


UPLINKS = (uplink(1, "203.0.113.10", "2001:db8:a::10"), uplink(2, "198.51.100.10"))
ONE, TWO, SIX = "10.0.0.10", "10.0.0.11", "fd00:10::10"
WEB = forward("tcp:80", ONE, ForwardServer(TWO, 8080, 3), SIX)


def lines(*forwards: ForwardConfig, down: forward_table.Down = ()) -> list[str]:
    return [line.strip() for line in forward_table.render(forwards, UPLINKS, down).splitlines()]


def test_nothing_forwarded_needs_no_table() -> None:
    assert forward_table.render((), UPLINKS, ()) == ""


def test_an_uplink_without_an_address_of_a_family_offers_nothing_in_it() -> None:
    assert forward_table.render((forward("tcp:80", SIX),), UPLINKS[1:], ()) == ""
    text = forward_table.render((forward("tcp:80", ONE, SIX),), UPLINKS[1:], ())
    assert "ip daddr { 198.51.100.10 }" in text
    assert "ip6" not in text


def test_a_service_of_one_server_is_an_element() -> None:
    found = lines(forward("tcp:443 udp:443", ONE), forward("tcp:25", ForwardServer(TWO, 2525)))
    assert [line for line in found if " : " in line and line.endswith(",")] == [
        "tcp . 443 : 10.0.0.10 . 443,",
        "udp . 443 : 10.0.0.10 . 443,",
        "tcp . 25 : 10.0.0.11 . 2525,",
    ]
    assert "dnat ip to 10.0.0.10" not in found


def test_services_of_the_same_servers_share_a_chain() -> None:
    found = lines(*(forward(f"tcp:{port} udp:{port}", ONE, TWO) for port in range(1000, 1010)))
    assert len([line for line in found if line.startswith("chain pool")]) == 1


def test_services_offered_on_the_same_uplinks_share_their_maps() -> None:
    """In any order of the config."""
    there = [("isp-1", "isp-2"), ("isp-2", "isp-1"), ("isp-2",)]
    found = lines(*(forward(f"tcp:{n}", ONE, uplinks=names) for n, names in enumerate(there, 1)))
    assert [line for line in found if "daddr" in line] == [
        "ip daddr { 198.51.100.10, 203.0.113.10 } jump dnat_4_1",
        "ip daddr { 198.51.100.10 } jump dnat_4_3",
    ]


def test_no_anonymous_set_a_pool() -> None:
    """The kernel would take time quadratic in their number."""
    few, many = (
        "\n".join(
            lines(*(forward(f"tcp:{n}", ONE, ForwardServer(TWO, n)) for n in range(1, count)))
        )
        for count in (3, 30)
    )
    assert few.count("{ tcp, udp }") == many.count("{ tcp, udp }")
    assert "vmap {" not in many


def test_what_nobody_serves_is_refused_and_counted_before_any_dnat() -> None:
    found = lines(WEB, forward("udp:53", TWO), down=((TWO, 53),))
    assert 'counter refused_1 { comment "forward[1]" }' in found
    assert "53 : goto reject_all_3," in found
    assert "meta l4proto udp th dport vmap @rejected_4_1_udp" in found
    assert "type filter hook prerouting priority dstnat - 10; policy accept;" in found
    assert "type filter hook output priority -110; policy accept;" in found
    assert forward_table.refusals(1) == "refused_1"


def test_without_refusals_nothing_looks_at_every_packet() -> None:
    assert not [line for line in lines(WEB) if "type filter" in line]


def test_the_same_question_is_not_answered_twice() -> None:
    forwards = (WEB,)
    assert forward_table.render(forwards, UPLINKS, ()) is forward_table.render(
        forwards, UPLINKS[:], ()
    )


@pytest.mark.parametrize(
    ("service", "checked"),
    [
        (WEB, [(ONE, 80, "tcp"), (TWO, 8080, "tcp"), (SIX, 80, "tcp")]),
        (forward("tcp:80 tcp:443", ONE, check="/up"), [(ONE, 80, "/up"), (ONE, 443, "/up")]),
        (forward("tcp:7000-7010", ONE), [(ONE, 7000, "tcp")]),
        (forward("udp:443 tcp:443", ONE), [(ONE, 443, "tcp")]),
        (forward("udp:53", ONE), []),
        (forward("tcp:80", ONE, check="off"), []),
    ],
)
def test_checked(service: ForwardConfig, checked: list[tuple[str, int, str]]) -> None:
    found = forward_table.checked_servers([service, service])
    assert found == tuple(sorted(CheckedServer(*each) for each in checked))


@pytest.mark.parametrize(
    ("question", "down", "target"),
    [
        (("tcp", "203.0.113.10", 80), (), ((ONE, 80, 1), (TWO, 8080, 3))),
        (("tcp", "2001:db8:a::10", 80), (), ((SIX, 80, 1),)),
        (("tcp", "203.0.113.10", 80), ((TWO, 8080),), ((ONE, 80, 1),)),
        (("tcp", "203.0.113.10", 80), ((TWO, 8080), (ONE, 80)), ()),
        (("tcp", "203.0.113.10", 80), ((TWO, 80),), ((ONE, 80, 1), (TWO, 8080, 3))),
    ],
)
def test_target(
    question: tuple[str, str, int],
    down: forward_table.Down,
    target: tuple[tuple[str, int, int], ...],
) -> None:
    found = forward_table.target((forward("tcp:25", TWO), WEB), UPLINKS, *question, down)
    assert found == Backend(1, tuple(ForwardServer(*each) for each in target))


@pytest.mark.parametrize(
    "question", [("udp", "203.0.113.10", 80), ("tcp", "10.0.0.1", 80), ("tcp", "203.0.113.10", 81)]
)
def test_no_target(question: tuple[str, str, int]) -> None:
    assert forward_table.target((WEB,), UPLINKS, *question) is None


def test_a_range_keeps_the_port() -> None:
    found = forward_table.target(
        (forward("udp:7000-7010", ONE),), UPLINKS, "udp", "203.0.113.10", 7004
    )
    assert found == Backend(0, (ForwardServer(ONE, 7004),))


def test_the_share_that_is_refused_is_told() -> None:
    forwards = (forward("tcp:80", ONE, ForwardServer(TWO, weight=3), on_down="reset"),)
    found = forward_table.target(forwards, UPLINKS, "tcp", "203.0.113.10", 80, ((TWO, 80),))
    assert found == Backend(0, (ForwardServer(ONE, 80),), 3)


def test_no_map_of_intervals_is_keyed_by_the_protocol() -> None:
    """Debian 12's nft has a kernel convert that key to a byte order, which 6.12 refuses."""
    found = lines(forward("tcp:80-90", TWO), forward("udp:53", TWO), down=((TWO, 53),))
    kinds = [found[n - 1] for n, line in enumerate(found) if line == "flags interval"]
    assert kinds
    assert set(kinds) == {"type inet_service : verdict"}
