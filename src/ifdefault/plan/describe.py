"""Operations in words: the `ip`, `nft` and `sysctl` commands that would do the same."""

from __future__ import annotations

from ifdefault.model import (
    NFT_TABLE,
    PROTOCOL,
    TABLE_MAIN,
    AddRule,
    DeleteRoute,
    DeleteRule,
    ForgetFlows,
    LoadNft,
    Operation,
    PutRoute,
    Route,
    Rule,
    SetGroup,
    SetSysctl,
)

_TABLE_NAMES = {TABLE_MAIN: "main", 255: "local", 253: "default"}


def describe(operation: Operation) -> str:
    match operation:
        case SetSysctl(name, value, was):
            return f"sysctl -w {name}={value}  # was {was}"
        case SetGroup(dev, group, was):
            return f"ip link set dev {dev} group {group}  # was {was}"
        case PutRoute(route, was):
            verb = "replace" if was else "add"
            return f"ip{_six(route.family)} route {verb} {route_text(route)}"
        case DeleteRoute(route):
            return f"ip{_six(route.family)} route del {route_text(route)}"
        case AddRule(rule):
            return f"ip{_six(rule.family)} rule add {rule_text(rule)}"
        case DeleteRule(rule):
            return f"ip{_six(rule.family)} rule del {rule_text(rule)}"
        case LoadNft(text):
            if text:
                return f"nft replace table inet {NFT_TABLE}  # {text.count(chr(10))} lines"
            return f"nft delete table inet {NFT_TABLE}"
        case ForgetFlows():
            return "conntrack -D -p udp  # redirected flows whose answers come from elsewhere now"


def _six(family: int) -> str:
    return " -6" if family == 6 else ""


def table_name(table: int) -> str:
    return _TABLE_NAMES.get(table, str(table))


def route_text(route: Route) -> str:
    """A route as `ip route` takes it."""
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
    words.append(f"table {table_name(route.table)}")
    if route.protocol == PROTOCOL:
        words.append(f"proto {PROTOCOL}")
    return " ".join(words)


def rule_text(rule: Rule) -> str:
    """A rule as `ip rule` takes and shows it."""
    words = [f"pref {rule.priority}"]
    if rule.invert:
        words.append("not")
    words.append(f"from {rule.src or 'all'}")
    if rule.dst:
        words.append(f"to {rule.dst}")
    if rule.mask:
        words.append(f"fwmark {rule.mark:#x}/{rule.mask:#x}")
    words += [f"{key} {name}" for key, name in (("iif", rule.iif), ("oif", rule.oif)) if name]
    if rule.ip_proto:
        words.append(f"ipproto {rule.ip_proto}")
    for key, (low, high) in (("sport", rule.sport), ("dport", rule.dport)):
        if high:
            words.append(f"{key} {low}-{high}")
    if rule.uids != (-1, -1):
        words.append(f"uidrange {rule.uids[0]}-{rule.uids[1]}")
    if rule.action == "lookup":
        words.append(f"lookup {table_name(rule.table)}")
    elif rule.action == "goto":
        words.append(f"goto {rule.goto}")
    else:
        words.append(rule.action)
    if rule.suppress_prefixlength >= 0:
        words.append(f"suppress_prefixlength {rule.suppress_prefixlength}")
    if rule.suppress_ifgroup >= 0:
        words.append(f"suppress_ifgroup {rule.suppress_ifgroup}")
    if rule.protocol == PROTOCOL:
        words.append(f"proto {PROTOCOL}")
    return " ".join(words)
