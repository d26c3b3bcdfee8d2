"""Faults on demand, laid at a provider's router: FAULTS names them.

Rules: the host sees what it would see in life: it isn't told. A provider may suffer several faults
at once, but not two that would take the same thing from each other. The world knows what is
suffered, so that any process can end it; ending what isn't there does no harm.
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
    Renumbering,
    chain,
)
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError, Problem


@dataclass(frozen=True, slots=True)
class Fault:
    """`amount` and `every_s` are those of a fault that isn't told; 0 where nothing is to tell."""

    what: str
    kind: FaultKind
    amount: int = 0
    unit: str = ""
    most: int = 0  # the greatest amount
    every_s: float = 0.0
    takes: tuple[str, ...] = ()  # what no other fault of the provider may take meanwhile


def _drop(hook: str, *rules: str) -> Filter:
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
        "the link loses its carrier and gets it back, every 4 seconds or --amount",
        Flaps(),
        amount=4,
        unit="s",
        most=3600,
        takes=("carrier", "addresses", "gateways"),
    ),
    "flapping-beyond": Fault(
        "forwarding ends and returns, every 4 seconds or --amount; the carrier stays",
        Gaps(lambda case: (case.amount / 2, case.amount / 2)),
        amount=4,
        unit="s",
        most=3600,
    ),
    "blackhole": Fault(
        "nothing is forwarded any more; the gateway itself still answers", _drop("forward", "drop")
    ),
    "gateway": Fault(
        "the router is dead: it neither forwards nor answers, not even ARP; the carrier stays",
        Filter((("inet", _SILENT + chain("forward", policy="drop")), ("arp", _SILENT))),
    ),
    "loss": Fault(
        "packets are lost, both ways: one in ten, or --amount percent",
        # those that take the way through a relay come by twice
        _drop("forward", 'oifname != "delay0" numgen random mod 100 < AMOUNT drop'),
        amount=10,
        unit="percent",
        most=99,  # all is "blackhole"
    ),
    "bursts": Fault(
        "everything is lost, both ways, in bursts of 200 or --amount ms on average, one in 10"
        " or --every seconds",
        Gaps(lambda case: (case.amount / 1000, case.every_s), at_random=True),
        amount=200,
        unit="ms",
        most=60_000,
        every_s=10.0,
    ),
    "delay": Fault(
        "packets take 50 ms longer each way, or --amount",
        fault_kinds.Delay(),
        amount=50,
        unit="ms",
        most=10_000,
    ),
    "no-inbound": Fault(
        "nothing reaches the host, what it sends still leaves",
        _drop("forward", 'oifname "cust0" drop'),
    ),
    "no-outbound": Fault(
        "nothing that the host sends leaves, it still hears",
        _drop("forward", 'iifname "cust0" drop'),
    ),
    "no-adverts": Fault(
        "the router advertises itself no more, and says no goodbye; its default expires",
        _drop("output", "icmpv6 type nd-router-advert drop"),
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
        "whoever is beyond the router answers at most 5 or --amount echo requests a second",
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
    "router": Fault(
        "the router is replaced: same addresses, another MAC",
        LinkFault("ip link set cust0 address {other_mac}", "ip link set cust0 address {mac}"),
    ),
    "renumber": Fault(
        "the host gets other addresses of the provider's, as by DHCP, and loses the old ones",
        Renumbering(),
        takes=("addresses",),
    ),
    "regateway": Fault(
        "the router gets other addresses, and main's default follows",
        Renumbering(),
        takes=("gateways",),
    ),
}


def inflict(
    world: World,
    fault: str,
    provider: str,
    amount: int | None = None,
    every_s: float | None = None,
) -> None:
    """Lay a fault; one that is suffered already begins anew, with these amounts."""
    case = _case(world, fault, provider, amount, every_s)
    for other in suffered(world, provider):
        if other == fault:
            undo(world, fault, provider)
        elif taken := set(FAULTS[other].takes).intersection(FAULTS[fault].takes):
            found = f'{provider} suffers "{other}", which holds its {sorted(taken)[0]} already'
            raise HostError(Problem("", found, f"end it first, or choose another than {fault}"))
    registry.add(world.name, fault_kinds.FAULTS, case.label, str(case.amount))
    try:
        FAULTS[fault].kind.start(case)
    except BaseException:
        undo(world, fault, provider)
        raise


def undo(world: World, fault: str, provider: str) -> None:
    case = _case(world, fault, provider)
    registry.remove(world.name, fault_kinds.FAULTS, case.label)
    FAULTS[fault].kind.end(case)


@contextmanager
def suffering(
    world: World,
    fault: str,
    provider: str,
    amount: int | None = None,
    every_s: float | None = None,
) -> Iterator[None]:
    """The fault holds for a block."""
    inflict(world, fault, provider, amount, every_s)
    try:
        yield
    finally:
        undo(world, fault, provider)


def suffered(world: World, provider: str) -> tuple[str, ...]:
    """The faults that a provider suffers now."""
    entries = (entry.split() for entry in registry.entries(world.name, fault_kinds.FAULTS))
    return tuple(fault for name, fault in entries if name == provider)


def renewed(world: World, fault: str, provider: str) -> dict[str, str]:
    """What "renumber" or "regateway" makes of each address."""
    return fault_kinds.RENEWED[fault](world.topology, provider)


def _case(
    world: World,
    name: str,
    provider: str,
    amount: int | None = None,
    every_s: float | None = None,
) -> Case:
    if name not in FAULTS:
        raise HostError(Problem("", f'no fault "{name}"', f"there are {', '.join(FAULTS)}"))
    if provider not in (names := [p.name for p in world.topology.providers]):
        raise HostError(Problem("", f'no provider "{provider}"', f"there are {', '.join(names)}"))
    fault = FAULTS[name]
    if amount is None:
        amount = fault.amount
    elif not fault.most:
        raise HostError(Problem("", f'"{name}" has no amount', "leave it out"))
    elif not 0 < amount <= fault.most:
        remedy = f"give 1 to {fault.most} ({fault.unit})"
        raise HostError(Problem("", f'no amount of "{name}": {amount}', remedy))
    if every_s is not None and not (fault.every_s and every_s > 0):
        remedy = "give more than 0" if fault.every_s else "leave it out"
        raise HostError(Problem("", f'"{name}" can\'t come every {every_s:g} s', remedy))
    return Case(world, provider, name, amount, every_s or fault.every_s)
