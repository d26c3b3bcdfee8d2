"""Operations as text: the `ip`, `nft` and `sysctl` commands that would do the same."""

from __future__ import annotations

from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_MAIN,
    AddRule,
    DeleteRoute,
    DeleteRule,
    ForgetFlows,
    LoadNft,
    Operation,
    PutHook,
    PutRoute,
    Route,
    Rule,
    SetGroup,
    SetSysctl,
)
from ifdefault.model.mptcp import DeleteEndpoint, Endpoint, PutEndpoint, SetMptcpLimit

_TABLE_NAMES = {TABLE_MAIN: "main", 255: "local", 253: "default"}
_METRICS = {
    2: "mtu",
    3: "window",
    7: "cwnd",
    8: "advmss",
    9: "reordering",
    10: "hoplimit",
    11: "initcwnd",
    14: "initrwnd",
    15: "quickack",
}  # RTAX_… of linux/rtnetlink.h


def describe(operation: Operation) -> str:
    match operation:
        case SetSysctl(name, value, was):
            return f"sysctl -w {name}={value}  # was {was}"
        case SetGroup(dev, group, was):
            return f"ip link set dev {dev} group {group}  # was {was}"
        case PutRoute(route, was):
            verb = "replace" if was else "add"
            return f"ip{_family(route)} route {verb} {route_text(route)}"
        case DeleteRoute(route):
            return f"ip{_family(route)} route del {route_text(route)}"
        case AddRule(rule):
            return f"ip{_six(rule.family)} rule add {rule_text(rule)}"
        case DeleteRule(rule):
            return f"ip{_six(rule.family)} rule del {rule_text(rule)}"
        case LoadNft(table, text):
            if text:
                return f"nft replace table inet {table}  # {text.count(chr(10))} lines"
            return f"nft delete table inet {table}"
        case PutHook(hook):
            return f"bpf {'put' if hook else 'remove'} ifdefault  # cgroup programs on connect()"
        case ForgetFlows():
            return "conntrack -D -p udp  # redirected flows whose replies now have another source"
        case SetMptcpLimit() | PutEndpoint() | DeleteEndpoint():
            return mptcp_text(operation)


def _six(family: int) -> str:
    return " -6" if family == 6 else ""


def _family(route: Route) -> str:
    """`ip` infers the family from the addresses, wrongly so with `via inet6`."""
    across = route.family == 4 and any(":" in hop.gateway for hop in route.hops)
    return " -4" if across else _six(route.family)


def table_name(table: int) -> str:
    return _TABLE_NAMES.get(table, str(table))


def route_text(route: Route) -> str:
    """A route in the syntax of ip-route(8)."""
    words = [] if route.kind == "unicast" else [route.kind]
    words.append(route.dst)
    if route.from_prefix:
        words.append(f"from {route.from_prefix}")
    for hop in route.hops:
        if len(route.hops) > 1:
            words.append("nexthop")
        if hop.gateway:
            via = "via inet6" if ":" in hop.gateway and route.family == 4 else "via"
            words.append(f"{via} {hop.gateway}")
        words.append(f"dev {hop.dev}")
        if hop.onlink:
            words.append("onlink")
    if route.src:
        words.append(f"src {route.src}")
    if route.metric:
        words.append(f"metric {route.metric}")
    words += [f"{_METRICS[kind]} {value}" for kind, value in route.metrics if kind in _METRICS]
    words.append(f"table {table_name(route.table)}")
    if route.protocol == PROTOCOL:
        words.append(f"proto {PROTOCOL}")
    return " ".join(words)


def rule_text(rule: Rule) -> str:
    """A rule in the syntax of ip-rule(8)."""
    action = {"lookup": f"lookup {table_name(rule.table)}", "goto": f"goto {rule.goto}"}
    words = (
        (True, f"pref {rule.priority}"),
        (rule.invert, "not"),
        (True, f"from {rule.src or 'all'}"),
        (rule.dst, f"to {rule.dst}"),
        (rule.mask, f"fwmark {rule.mark:#x}/{rule.mask:#x}"),
        (rule.iif, f"iif {rule.iif}"),
        (rule.oif, f"oif {rule.oif}"),
        (rule.ip_proto, f"ipproto {rule.ip_proto}"),
        (any(rule.sport), "sport {}-{}".format(*rule.sport)),
        (any(rule.dport), "dport {}-{}".format(*rule.dport)),
        (rule.uids != (-1, -1), "uidrange {}-{}".format(*rule.uids)),
        (True, action.get(rule.action, rule.action)),
        (rule.suppress_prefixlength >= 0, f"suppress_prefixlength {rule.suppress_prefixlength}"),
        (rule.suppress_ifgroup >= 0, f"suppress_ifgroup {rule.suppress_ifgroup}"),
        (rule.protocol == PROTOCOL, f"proto {PROTOCOL}"),
    )
    return " ".join(word for wanted, word in words if wanted)


def mptcp_text(operation: SetMptcpLimit | PutEndpoint | DeleteEndpoint) -> str:
    match operation:
        case SetMptcpLimit(name, value, was):
            return f"ip mptcp limits set {name} {value}  # was {was}"
        case PutEndpoint(endpoint, None):
            return f"ip mptcp endpoint add {endpoint_text(endpoint)}"
        case PutEndpoint(endpoint):
            backup = "backup" if endpoint.backup else "nobackup"
            return f"ip mptcp endpoint change id {endpoint.id} {backup}  # {endpoint.address}"
        case DeleteEndpoint(endpoint):
            return f"ip mptcp endpoint delete id {endpoint.id}  # {endpoint.address}"


def endpoint_text(endpoint: Endpoint) -> str:
    """An endpoint in the syntax of ip-mptcp(8)."""
    flags = ("signal", "subflow", "backup", "fullmesh", "implicit")
    words = (
        (True, endpoint.address),
        (endpoint.port, f"port {endpoint.port}"),
        (endpoint.dev, f"dev {endpoint.dev}"),
        (True, f"id {endpoint.id}"),
        *((getattr(endpoint, flag), flag) for flag in flags),
    )
    return " ".join(word for wanted, word in words if wanted)
