"""Fault injection at a provider's router: FAULTS names the faults.

Rules: the host sees what it would see in reality. A provider can have several faults at once, but
not two that change the same thing. Active faults are in the world's registry, so that any process
can remove them; removing a fault that isn't active is safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ifdefault.lab import fault_kinds, registry
from ifdefault.lab.fault_kinds import (
    Case,
    FaultKind,
    Filter,
    Flaps,
    Gaps,
    LinkFault,
    Relay,
    Renumbering,
    chain,
)
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError, Problem


@dataclass(frozen=True, slots=True)
class Fault:
    """`amount` and `every_s` are defaults, 0 where the fault has none."""

    what: str
    kind: FaultKind
    amount: int = 0
    unit: str = ""
    most: int = 0  # the largest amount
    every_s: float = 0.0
    takes: tuple[str, ...] = ()  # resources that only one fault of the provider may change


def _rules(hook: str, *rules: str) -> Filter:
    return Filter((("inet", chain(hook, *rules)),))


_SILENT = "".join(chain(hook, policy="drop") for hook in ("input", "output"))
_POLICE = "limit rate over AMOUNT/second burst AMOUNT packets"
_ASKED = """\
  set asked{0} {{
    typeof {1} daddr
    flags dynamic, timeout
    timeout 1m
    size 4096
  }}
"""

FAULTS = {
    "carrier": Fault(
        "the link loses its carrier",
        LinkFault("ip link set cust0 down", "ip link set cust0 up"),
        takes=("carrier",),
    ),
    "flapping": Fault(
        "the link loses its carrier and regains it, every 4 seconds or --amount",
        Flaps(),
        amount=4,
        unit="s",
        most=3600,
        takes=("carrier", "addresses", "gateways"),
    ),
    "flapping-beyond": Fault(
        "forwarding stops and resumes, every 4 seconds or --amount; the carrier stays",
        Gaps(lambda case: (case.amount / 2, case.amount / 2)),
        amount=4,
        unit="s",
        most=3600,
    ),
    "blackhole": Fault(
        "nothing is forwarded; the gateway itself still answers", _rules("forward", "drop")
    ),
    "gateway": Fault(
        "the router is dead: it neither forwards nor answers, not even ARP; the carrier stays",
        Filter((("inet", _SILENT + chain("forward", policy="drop")), ("arp", _SILENT))),
    ),
    "loss": Fault(
        "packets are lost in both directions: one in ten, or --amount percent",
        # packets through the relay pass twice
        _rules("forward", 'oifname != "delay0" numgen random mod 100 < AMOUNT drop'),
        amount=10,
        unit="percent",
        most=99,  # 100 % is "blackhole"
    ),
    "bursts": Fault(
        "everything is lost in both directions, in bursts of 200 or --amount ms on average, one"
        " in 10 or --every seconds",
        Gaps(lambda case: (case.amount / 1000, case.every_s), at_random=True),
        amount=200,
        unit="ms",
        most=60_000,
        every_s=10.0,
    ),
    "delay": Fault(
        "packets are delayed by 50 or --amount ms in each direction",
        Relay("ifdefault.lab.relay"),
        amount=50,
        unit="ms",
        most=10_000,
        takes=("relay",),
    ),
    "no-mptcp": Fault(
        "the router removes the MPTCP options of SYNs",
        _rules("forward", "tcp flags & syn == syn reset tcp option mptcp"),
    ),
    "mirror": Fault(
        "each SYN-ACK has the MPTCP option of its SYN, as of servers that copy unknown options",
        Relay("ifdefault.lab.mirror"),
        takes=("relay",),
    ),
    "no-inbound": Fault(
        "nothing reaches the host; what it sends still leaves",
        _rules("forward", 'oifname "cust0" drop'),
    ),
    "no-outbound": Fault(
        "nothing that the host sends leaves; it still receives",
        _rules("forward", 'iifname "cust0" drop'),
    ),
    "no-adverts": Fault(
        "the router stops sending advertisements, without a last one; its default route expires",
        _rules("output", "icmpv6 type nd-router-advert drop"),
    ),
    "police": Fault(
        "the router answers at most 5 or --amount echo requests a second",
        Filter(
            (
                (
                    "inet",
                    f"  chain police {{\n    {_POLICE} drop\n  }}\n"
                    + chain(
                        "input",
                        "icmp type echo-request jump police",
                        "icmpv6 type echo-request jump police",
                    ),
                ),
            )
        ),
        amount=5,
        unit="a second",
        most=1_000_000,
    ),
    "police-beyond": Fault(
        "hosts beyond the router answer at most 5 or --amount echo requests a second",
        Filter(
            (
                (
                    "inet",
                    _ASKED.format(4, "ip")
                    + _ASKED.format(6, "ip6")
                    + chain(
                        "forward",
                        'oifname != "core0" accept',
                        f"icmp type echo-request update @asked4 {{ ip daddr {_POLICE} }} drop",
                        f"icmpv6 type echo-request update @asked6 {{ ip6 daddr {_POLICE} }} drop",
                    ),
                ),
            )
        ),
        amount=5,
        unit="a second",
        most=1_000_000,
    ),
    "police-path": Fault(
        "at most 5 or --amount echo requests a second are forwarded, in each family",
        Filter(
            (
                (
                    "inet",
                    chain(
                        "forward",
                        'oifname != "core0" accept',
                        f"icmp type echo-request {_POLICE} drop",
                        f"icmpv6 type echo-request {_POLICE} drop",
                    ),
                ),
            )
        ),
        amount=5,
        unit="a second",
        most=1_000_000,
    ),
    "router": Fault(
        "the router is replaced: same addresses, another MAC",
        LinkFault("ip link set cust0 address {other_mac}", "ip link set cust0 address {mac}"),
    ),
    "renumber": Fault(
        "the host gets other addresses from the provider, as by DHCP, and loses the old ones",
        Renumbering(),
        takes=("addresses",),
    ),
    "regateway": Fault(
        "the router gets other addresses, and the main table's default route is changed",
        Renumbering(),
        takes=("gateways",),
    ),
}


def inject(
    world: World,
    fault: str,
    provider: str,
    amount: int | None = None,
    every_s: float | None = None,
) -> None:
    """Start a fault; one that is active already is restarted with these amounts."""
    case = _case(world, fault, provider, amount, every_s)
    for other in active(world, provider):
        if other == fault:
            remove(world, fault, provider)
        elif taken := set(FAULTS[other].takes).intersection(FAULTS[fault].takes):
            conflict = f'{provider}: "{other}" is active and changes the {sorted(taken)[0]} too'
            raise HostError(Problem("", conflict, f"undo it first, or use another than {fault}"))
    registry.add(world.name, fault_kinds.FAULTS, case.label, str(case.amount))
    try:
        FAULTS[fault].kind.start(case)
    except BaseException:
        remove(world, fault, provider)
        raise


def remove(world: World, fault: str, provider: str) -> None:
    case = _case(world, fault, provider)
    registry.remove(world.name, fault_kinds.FAULTS, case.label)
    FAULTS[fault].kind.end(case)


@contextmanager
def injected(
    world: World,
    fault: str,
    provider: str,
    amount: int | None = None,
    every_s: float | None = None,
) -> Iterator[None]:
    """Inject a fault for a block."""
    inject(world, fault, provider, amount, every_s)
    try:
        yield
    finally:
        remove(world, fault, provider)


def active(world: World, provider: str) -> tuple[str, ...]:
    """The active faults of a provider."""
    entries = (entry.split() for entry in registry.entries(world.name, fault_kinds.FAULTS))
    return tuple(fault for name, fault in entries if name == provider)


def renewed(world: World, fault: str, provider: str) -> dict[str, str]:
    """The new address for each old one, for "renumber" or "regateway"."""
    return fault_kinds.RENEWED[fault](world.topology, provider)


def _case(
    world: World,
    name: str,
    provider: str,
    amount: int | None = None,
    every_s: float | None = None,
) -> Case:
    if name not in FAULTS:
        raise HostError(Problem("", f'unknown fault "{name}"', f"use one of {', '.join(FAULTS)}"))
    if provider not in (names := [p.name for p in world.topology.providers]):
        remedy = f"use one of {', '.join(names)}"
        raise HostError(Problem("", f'unknown provider "{provider}"', remedy))
    fault = FAULTS[name]
    if amount is None:
        amount = fault.amount
    elif not fault.most:
        raise HostError(Problem("", f'"{name}" has no amount', "leave it out"))
    elif not 0 < amount <= fault.most:
        remedy = f"use 1 to {fault.most} ({fault.unit})"
        raise HostError(Problem("", f'amount {amount} of "{name}" is not valid', remedy))
    if every_s is not None and not (fault.every_s and every_s > 0):
        remedy = "use more than 0" if fault.every_s else "leave it out"
        raise HostError(Problem("", f'"{name}" can\'t occur every {every_s:g} s', remedy))
    return Case(world, provider, name, amount, every_s or fault.every_s)
