"""The lines for `ip -batch` that build a topology in namespaces. Pure.

Rules: few processes, many lines. Addresses and routes use `replace`, so that they can be installed
again after a link lost them.
"""

from __future__ import annotations

from collections.abc import Callable

from ifdefault.lab.topology import NodeSpec, Topology

# No DAD, so that addresses work at once. No router advertisements unless a topology has them.
DEFAULT_SYSCTLS = {
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
}
_UNRESOLVED = "16384"


def link_sysctls(topology: Topology, node: str) -> dict[str, str]:
    """A short queue for unresolved neighbours on the other nodes. In namespaces of one kernel a
    queued packet still counts against the sender's socket, and the host has one socket for all
    echo replies."""
    ends = (end for pair in topology.links for end in pair if node == end.node != "host")
    return {
        f"net/ipv{family}/neigh/{end.dev}/unres_qlen_bytes": _UNRESOLVED
        for end in ends
        for family in (4, 6)
    }


def namespace_lines(topology: Topology, netns: Callable[[str], str]) -> str:
    return "".join(f"netns add {netns(node.name)}\n" for node in topology.nodes)


def link_lines(topology: Topology, netns: Callable[[str], str]) -> str:
    return "".join(
        f"link add name {left.dev} address {left.mac} netns {netns(left.node)} type veth "
        f"peer name {right.dev} address {right.mac} netns {netns(right.node)}\n"
        for left, right in topology.links
    )


def interface_lines(topology: Topology, node: NodeSpec) -> str:
    """Create the node's own interfaces, and set all links up."""
    ends = [end for pair in topology.links for end in pair if end.node == node.name]
    lines = []
    for bridge, ports in node.bridges:
        # without snooping neighbour discovery works at once, without a querier
        lines.append(f"link add {bridge} type bridge mcast_snooping 0")
        lines += [f"link set {port} master {bridge}" for port in ports]
    for name, parent_and_mac in node.macvlans:
        parent, mac = parent_and_mac.split()
        lines.append(f"link add link {parent} name {name} address {mac} type macvlan mode bridge")
    lines += [f"tuntap add dev {name} mode tun" for name in node.tuns]
    own = (*(name for name, _ in node.bridges), *(name for name, _ in node.macvlans), *node.tuns)
    lines += [f"link set {dev} up" for dev in ("lo", *(end.dev for end in ends), *own)]
    lines += [f"link {line}" for line in node.interfaces]
    return "\n".join(lines) + "\n"


def address_lines(node: NodeSpec) -> str:
    return "".join(
        f"address replace {address} dev {dev}{' nodad' if ':' in address else ''}\n"
        for dev, addresses in node.addresses
        for address in addresses
    )


def route_lines(node: NodeSpec, option: str) -> str:
    """The routes for one of `ip`'s OPTIONS; "" is for those whose family `ip` infers."""
    routes = (route for route in node.routes if _option(route) == option)
    return "".join(f"route replace {route.removeprefix(option).strip()}\n" for route in routes)


def rule_lines(node: NodeSpec, option: str) -> str:
    rules = (rule for rule in node.rules if _option(rule) == option)
    return "".join(f"rule add {rule.removeprefix(option).strip()}\n" for rule in rules)


OPTIONS = ("", "-4", "-6")


def _option(line: str) -> str:
    return line[:2] if line[0] == "-" else ""
