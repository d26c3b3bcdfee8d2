"""Faults on demand, laid at a provider's router: FAULTS names them.

Rules: a fault is two shell scripts, do and undo; undoing one that isn't there does no harm. The
host sees what it would see in life: it isn't told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ifdefault.errors import HostError, Problem
from ifdefault.lab.topology import End
from ifdefault.lab.world import World


@dataclass(frozen=True, order=True, slots=True)
class Fault:
    """`do` and `undo` know {dev}, {mac}, {other_mac} and {amount}."""

    what: str
    do: str
    undo: str
    amount: int = 0  # unless told; 0 where there is nothing to tell


def _dropping(match: str, hook: str = "forward") -> str:
    """Drop packets; those that are forwarded unless told, so the router's own still go out."""
    return f"""nft -f - <<'E'
table inet fault
delete table inet fault
table inet fault {{{{
  chain {hook} {{{{
    type filter hook {hook} priority -10; policy accept;
    {match} drop
  }}}}
}}}}
E"""


_PASS = "nft delete table inet fault 2>/dev/null || true"

FAULTS = {
    "carrier": Fault(
        "the link loses its carrier", "ip link set {dev} down", "ip link set {dev} up"
    ),
    "blackhole": Fault(
        "nothing is forwarded any more; the gateway itself still answers", _dropping(""), _PASS
    ),
    "loss": Fault(
        "packets are lost, both ways: one in ten, or --amount percent",
        _dropping("numgen random mod 100 < {amount}"),
        _PASS,
        amount=10,
    ),
    "no-inbound": Fault(
        "nothing reaches the host, what it sends still leaves", _dropping('oifname "{dev}"'), _PASS
    ),
    "no-outbound": Fault(
        "nothing that the host sends leaves, it still hears", _dropping('iifname "{dev}"'), _PASS
    ),
    "no-adverts": Fault(
        "the router advertises itself no more, and says no goodbye; its default expires",
        _dropping("icmpv6 type nd-router-advert", hook="output"),
        _PASS,
    ),
    "router": Fault(
        "the router is replaced: same addresses, another MAC",
        "ip link set {dev} address {other_mac}",
        "ip link set {dev} address {mac}",
    ),
}


def inflict(world: World, fault: str, provider: str, amount: int | None = None) -> None:
    _run(world, _find(fault).do, provider, _find(fault).amount if amount is None else amount)


def undo(world: World, fault: str, provider: str) -> None:
    _run(world, _find(fault).undo, provider, 0)
    world[provider].lay()  # a link that went down took its routes along


@contextmanager
def suffering(world: World, fault: str, provider: str, amount: int | None = None) -> Iterator[None]:
    """The fault holds for a block."""
    inflict(world, fault, provider, amount)
    try:
        yield
    finally:
        undo(world, fault, provider)


def _run(world: World, script: str, provider: str, amount: int) -> None:
    if provider not in (names := [p.name for p in world.topology.providers]):
        raise HostError(Problem("", f'no provider "{provider}"', f"there are {', '.join(names)}"))
    places = {
        "dev": "cust0",
        "mac": End(provider, "cust0").mac,
        "other_mac": End(f"{provider} replaced", "cust0").mac,
        "amount": amount,
    }
    world[provider].run(["sh", "-e", "-c", script.format(**places)])


def _find(name: str) -> Fault:
    if name not in FAULTS:
        raise HostError(Problem("", f'no fault "{name}"', f"there are {', '.join(FAULTS)}"))
    return FAULTS[name]
