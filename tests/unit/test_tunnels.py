"""Tunnels of WireGuard move once the rules stand, and only those that may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.daemon import move_tunnels
from ifdefault.daemon.controller import effects as f
from ifdefault.kernel import wireguard
from ifdefault.kernel.wireguard import Peer
from ifdefault.model.flow import RouteReply
from ifdefault.model.kernel import Link
from tests.unit.controlled import Host, facts, kinds

PEER = Peer("wg0", "KEY=", "192.0.2.80", 51820)
DIALLED = replace(PEER, allowed=("0.0.0.0/0", "::/0"))
EFFECT = f.MoveTunnels((("wan1", "isp-b"), ("wan0", "isp-a"), ("wg1", "vps")), ())


def with_link(kind: str) -> Host:
    link = Link(20, "wg0", kind=kind)
    return Host(replace(facts(), links=(*facts().links, link))).start()


def moves(host: Host) -> list[tuple[str, tuple[int, ...]]]:
    """Which uplink comes first, and the families that have no other."""
    return [(effect.uplinks[0][1], effect.alone) for effect in host.every(f.MoveTunnels)]


@pytest.mark.parametrize("kind", ["wireguard", "tun"])
def test_they_move_after_the_rules(kind: str) -> None:
    host = with_link(kind).forget()
    host.black_hole("wan0")
    host.run(20.0)
    host.revive("wan0")
    host.run(60.0)
    assert (moves(host)[0], moves(host)[-1]) == (("isp-b", (4, 6)), ("isp-a", ()))
    for turn in host.turns:
        if f.MoveTunnels in kinds(turn):
            assert kinds(turn).index(f.Converge) < kinds(turn).index(f.MoveTunnels)


def test_nothing_moves_where_there_is_no_tunnel() -> None:
    host = with_link("bridge")
    host.black_hole("wan0")
    host.run(20.0)
    assert host.default() == "wan1"
    assert moves(host) == []


@pytest.mark.parametrize(
    ("peer", "dev", "alone", "moved"),
    [
        (DIALLED, "wan1", (), "isp-b"),
        (replace(PEER, keepalive_s=25, allowed=("10.9.0.1/32",)), "wan0", (), "isp-a"),
        (replace(PEER, allowed=("10.9.0.1/32", "fd00::1/128")), "wan1", (), None),
        (replace(PEER, allowed=("10.9.0.1/32", "fd00::1/128")), "wan1", (6,), None),
        (replace(PEER, allowed=("10.9.0.1/32", "fd00::1/128")), "wan1", (4,), "isp-b"),
        (DIALLED, "lan0", (4,), None),
        (DIALLED, "", (4,), None),
        (replace(DIALLED, tunnel="wg1"), "wg1", (), None),
        (replace(DIALLED, address="fe80::1%lan0"), "wan1", (), None),
    ],
)
def test_who_moves(
    peer: Peer, dev: str, alone: tuple[int, ...], moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = RouteReply("unicast" if dev else "unreachable", dev)
    monkeypatch.setattr(move_tunnels, "route_get_many", lambda flows, links: [reply for _ in flows])
    effect = replace(EFFECT, alone=alone)  # type: ignore[arg-type]
    assert dict(move_tunnels.to_move(effect, [peer], ())) == ({peer: moved} if moved else {})


@pytest.mark.parametrize(
    "dump",
    [
        "",
        "garbage\n",
        "SECRET\tOWN=\tx\toff\n",
        "SECRET\tOWN=\t51820\toff\nKEY=\tPSK\n",
        "SECRET\tOWN=\t51820\toff\nKEY=\tPSK\t192.0.2.80:x\t::/0\t0\t0\t0\toff\n",
        "SECRET\tOWN=\t51820\toff\nKEY=\tPSK\tgarbage:51820\t::/0\t0\t0\t0\toff\n",
    ],
)
def test_other_tunnels_move_if_wg_prints_garbage(
    dump: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = "SECRET\tOWN=\t51820\toff\nKEY=\tPSK\t192.0.2.80:51820\t::/0\t0\t0\t0\toff\n"
    printed = {"wg0": dump, "wg1": good}
    links = [Link(20, "wg0", kind="wireguard"), Link(21, "wg1", kind="wireguard")]
    reply = RouteReply("unicast", "wan1")
    monkeypatch.setattr(move_tunnels, "read_links", lambda _: links)
    monkeypatch.setattr(move_tunnels, "route_get_many", lambda flows, _: [reply for _ in flows])
    monkeypatch.setattr(wireguard, "program", lambda: "wg")
    monkeypatch.setattr(wireguard, "_run", lambda arguments: printed.get(arguments[1], ""))
    broken, moved = move_tunnels.move(EFFECT)
    assert (broken.tunnel, broken.error) == ("wg0", "the output of `wg show` can't be read")
    assert (moved.tunnel, moved.uplink, moved.peers) == ("wg1", "isp-b", 1)


def test_a_peer_is_set_to_what_it_is() -> None:
    same = ["peer", "KEY=", "endpoint", "192.0.2.80:51820"]
    assert wireguard.set_anew(PEER, greet=False) == same
    v6 = replace(PEER, address="2001:db8::1")
    assert wireguard.set_anew(v6, greet=False)[3] == "[2001:db8::1]:51820"


@pytest.mark.parametrize(("keepalive_s", "sequence"), [(0, ["0", "25", "0"]), (21, ["0", "21"])])
def test_its_keepalive_is_what_it_was(keepalive_s: int, sequence: list[str]) -> None:
    arguments = wireguard.set_anew(replace(PEER, keepalive_s=keepalive_s), greet=True)
    at = [n for n, word in enumerate(arguments) if word == "persistent-keepalive"]
    assert [arguments[n + 1] for n in at] == sequence
    assert all(arguments[n - 2 : n] == ["peer", "KEY="] for n in at[1:])
