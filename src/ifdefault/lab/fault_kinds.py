"""How faults are injected and removed: one kind for each mechanism.

Rules: a kind has `start` and `end`, which take a Case; `end` is safe where the fault isn't active.
Tables and processes have the fault's name, so that several faults can be active together.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ifdefault.lab import build, registry, renumber
from ifdefault.lab.node import Node
from ifdefault.lab.topology import LinkEnd, NodeSpec, Topology
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

FAULTS = "faults"  # the kind of the registry's entries "PROVIDER FAULT"
RENEWED: dict[str, Callable[[Topology, str], dict[str, str]]] = {
    "renumber": renumber.host_addresses,
    "regateway": renumber.gateways,
}
_LINK_FAULTS = ("carrier", "flapping")
_RELAY_DEV = "delay0"
_RELAY_TABLE = 200
_RELAY_MARK = 0xDE1A


@dataclass(frozen=True, slots=True)
class Case:
    """A fault of a provider. `every_s` is for intermittent faults."""

    world: World
    provider: str
    fault: str
    amount: int = 0
    every_s: float = 0.0

    @property
    def node(self) -> Node:
        return self.world[self.provider]

    @property
    def label(self) -> str:
        return f"{self.provider} {self.fault}"

    @property
    def table(self) -> str:
        return f"fault-{self.fault}"


class FaultKind(Protocol):
    def start(self, case: Case) -> None: ...
    def end(self, case: Case) -> None: ...


@dataclass(frozen=True, slots=True)
class Filter:
    """The fault's nft tables, by family; AMOUNT is replaced by the amount."""

    tables: tuple[tuple[str, str], ...]

    def start(self, case: Case) -> None:
        for family, chains in self.tables:
            text = chains.replace("AMOUNT", str(case.amount))
            case.node.nft(f"{_no_table(family, case)}table {family} {case.table} {{\n{text}}}\n")

    def end(self, case: Case) -> None:
        case.node.nft("".join(_no_table(family, case) for family, _ in self.tables))


@dataclass(frozen=True, slots=True)
class LinkFault:
    """Shell commands for the link to the customers; {mac} and {other_mac} are replaced."""

    do: str
    undo: str

    def start(self, case: Case) -> None:
        _shell(case, self.do)

    def end(self, case: Case) -> None:
        _shell(case, self.undo)
        configure(case.node)  # a link that goes down loses its routes


@dataclass(frozen=True, slots=True)
class Flaps:
    """The carrier is lost and returns; the amount is the seconds from one loss to the next."""

    def start(self, case: Case) -> None:
        spec = present_spec(case.node)
        up = f"ip link set cust0 up\n{_configuration(spec)}"
        _repeat(case, "ip link set cust0 down", up, case.amount / 2, case.amount / 2)

    def end(self, case: Case) -> None:
        case.world.end(_process(case))
        case.node.run(["ip", "link", "set", "cust0", "up"])
        configure(case.node)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Forwarding stops for $MS each time; the kernel ends every gap, by a set timeout."""

    times_s: Callable[[Case], tuple[float, float]]  # the length of a gap, and of the time after it
    at_random: bool = False

    def start(self, case: Case) -> None:
        _GAPS.start(case)
        element = f"add element inet {case.table} now {{ core0 timeout ${{MS}}ms }}"
        _repeat(case, f'nft "{element}"', "", *self.times_s(case), at_random=self.at_random)

    def end(self, case: Case) -> None:
        case.world.end(_process(case))
        _GAPS.end(case)


@dataclass(frozen=True, slots=True)
class Relay:
    """Forwarded packets go through a program of ours, which delays or changes them."""

    module: str

    def start(self, case: Case) -> None:
        _run(case, [self.module, _RELAY_DEV, *[str(case.amount)] * bool(case.amount)])
        case.node.ip(f"link set {_RELAY_DEV} txqueuelen 10000 up\n")
        for option in ("-4", "-6"):
            route = f"route replace default dev {_RELAY_DEV} table {_RELAY_TABLE}\n"
            case.node.ip(f"{route}rule add fwmark {_RELAY_MARK} lookup {_RELAY_TABLE}\n", option)
        _DETOUR.start(case)

    def end(self, case: Case) -> None:
        _DETOUR.end(case)
        for option in ("-4", "-6"):
            rule = ["ip", option, "rule", "del", "fwmark", str(_RELAY_MARK)]
            case.node.run(rule, check=False)
        case.world.end(_process(case))


@dataclass(frozen=True, slots=True)
class Renumbering:
    """Other addresses, on every node that has the old ones, by the fault's entry in RENEWED."""

    def start(self, case: Case) -> None:
        renewed = RENEWED[case.fault](case.world.topology, case.provider)
        _move(case.world, {new: old for old, new in renewed.items()})

    def end(self, case: Case) -> None:
        _move(case.world, RENEWED[case.fault](case.world.topology, case.provider))


def present_spec(node: Node) -> NodeSpec:
    """A node's spec after all active renumberings."""
    spec = node.spec
    for entry in registry.entries(node.world.name, FAULTS):
        provider, fault = entry.split()
        if fault in RENEWED:
            spec = renumber.respell(spec, RENEWED[fault](node.world.topology, provider))
    return spec


def configure(node: Node) -> None:
    """Install a node's present addresses and routes again."""
    node.configure(present_spec(node), routes=not _is_down(node))


def _is_down(node: Node) -> bool:
    """Whether a fault keeps the node's link down: then no route through it can be added."""
    active = registry.entries(node.world.name, FAULTS)
    return any(f"{node.name} {fault}" in active for fault in _LINK_FAULTS)


def _move(world: World, before: Mapping[str, str]) -> None:
    """Change addresses on every node that has them; `before`: from new to old ones."""
    for node in world:
        spec = present_spec(node)
        old = renumber.respell(spec, before)
        if old != spec:
            # new before old would make the new one secondary, deleted with the old one
            addresses = set(_flat(old)).difference(_flat(spec))
            _force(node, [f"address del {text} dev {dev}" for dev, text in addresses])
            configure(node)
            obsolete = set(old.routes).difference(spec.routes)
            for option in build.OPTIONS:
                routes = build.route_lines(replace(old, routes=tuple(obsolete)), option)
                _force(node, routes.replace("route replace ", "route del ").splitlines(), option)


def _flat(spec: NodeSpec) -> list[tuple[str, str]]:
    return [(dev, text) for dev, many in spec.addresses for text in many]


def _force(node: Node, lines: Sequence[str], option: str = "") -> None:
    """Pass lines to `ip -batch`, where some of what they delete may not exist."""
    if lines:
        argv = ["ip", *option.split(), "-force", "-batch", "-"]
        node.run(argv, stdin="".join(f"{line}\n" for line in lines), check=False)


def _run(case: Case, module: Sequence[str]) -> subprocess.Popen[str]:
    """Run one of our modules on the router, until the fault or the world ends."""
    path = case.world.dir / f"{_process(case).replace(' ', '-')}.log"
    with path.open("w") as log:
        child = case.node.popen(
            [sys.executable, "-m", *module],
            stdout=subprocess.PIPE,
            stderr=log,
            what=_process(case),
        )
    assert child.stdout is not None
    with child.stdout as stdout:
        if stdout.readline() != "ready\n":
            reason = path.read_text().strip().rpartition("\n")[2]
            raise HostError(f"{case.provider}: can't inject {case.fault}: {reason}")
    return child


def _repeat(
    case: Case, begin: str, end: str, lasts_s: float, rests_s: float, *, at_random: bool = False
) -> None:
    options = [f"--begin={begin}", f"--end={end}", f"--lasts={lasts_s}", f"--rests={rests_s}"]
    _run(case, ["ifdefault.lab.intermittent_faults", *options, *["--at-random"] * at_random])


def _process(case: Case) -> str:
    return f"fault {case.label}"


def _shell(case: Case, script: str) -> None:
    macs = {
        name: LinkEnd(name, "cust0").mac for name in (case.provider, f"{case.provider} replaced")
    }
    mac, other_mac = macs.values()
    case.node.run(["sh", "-e", "-c", script.format(mac=mac, other_mac=other_mac)])


def _configuration(spec: NodeSpec) -> str:
    """A shell script that installs a node's addresses and routes."""
    batches = [("", build.address_lines(spec))]
    batches += [(option, build.route_lines(spec, option)) for option in build.OPTIONS]
    return "".join(f"ip {option} -batch - <<E\n{lines}E\n" for option, lines in batches if lines)


def _no_table(family: str, case: Case) -> str:
    return f"table {family} {case.table}\ndelete table {family} {case.table}\n"


def chain(hook: str, *rules: str, policy: str = "accept") -> str:
    body = "".join(f"    {rule}\n" for rule in rules)
    return f"""\
  chain {hook} {{
    type filter hook {hook} priority -10; policy {policy};
{body}  }}
"""


_GAPS = Filter(
    (
        (
            "inet",
            "  set now {\n    type ifname\n    flags dynamic, timeout\n    size 16\n  }\n"
            + chain("forward", "iifname @now drop", "oifname @now drop"),
        ),
    )
)
# By marks and not by `iif`: with proxy ARP the router would answer ARP for every address.
_DETOUR = Filter(
    (("inet", chain("prerouting", f'iifname != "{_RELAY_DEV}" meta mark set {_RELAY_MARK}')),)
)
