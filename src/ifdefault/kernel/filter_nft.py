"""Packet filters as nftables lists them: `nft -j list ruleset` to `model.packet_filter`.

Rules: pure; libnftables-json(5) has the format. Only chains that packets pass on a path are
taken, and those that they jump to. A rule with a set of concatenations or a verdict map becomes
several rules. What isn't understood becomes unknown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

from ifdefault.kernel.nft_json import NOT_UNDERSTOOD
from ifdefault.model.kernel import OWN_TABLES
from ifdefault.model.packet_filter import (
    NEVER,
    UNKNOWN,
    Condition,
    FilterChain,
    FilterRule,
    Key,
    Path,
    Verdict,
)

TableKey = tuple[str, str]  # family, name
# the elements of a named set or map of a table; None: not known
Elements = Callable[[TableKey, str], list[Any] | None]

HOOKS: dict[Path, tuple[str, ...]] = {"input": ("prerouting", "input"), "forward": ("forward",)}
_MOST = 64  # rules that one rule may become
_CONTINUE = (
    *"counter log mangle continue dup flow secmark last".split(),
    *("ct helper", "ct timeout", "ct expectation"),
)
_DECIDE: dict[str, Verdict] = {
    "accept": "accept",
    "drop": "drop",
    "reject": "drop",
    "return": "return",
    "jump": "jump",
    "goto": "goto",
    "notrack": "notrack",
    **dict.fromkeys("queue dnat snat masquerade redirect tproxy synproxy fwd".split(), "unknown"),
}
_META: dict[str, Key] = {
    **dict.fromkeys(("iifname", "iif"), "interface"),
    **dict.fromkeys(("oifname", "oif"), "out_interface"),
    **dict.fromkeys(("nfproto", "protocol"), "family"),
    "l4proto": "transport",
    "pkttype": "packet_type",
}
_PAYLOAD: dict[tuple[str, str], Key] = {
    **{(transport, "dport"): "port" for transport in ("tcp", "udp", "th")},
    **{(transport, "sport"): "source_port" for transport in ("tcp", "udp", "th")},
    **{(ip, "saddr"): "source" for ip in ("ip", "ip6")},
    **{(ip, "daddr"): "destination" for ip in ("ip", "ip6")},
    ("ip", "protocol"): "transport",
    ("ip6", "nexthdr"): "transport",
}
_FAMILIES = {"ipv4": "4", "ip": "4", "ipv6": "6", "ip6": "6"}
_TRANSPORTS = "tcp udp udplite sctp dccp icmp icmpv6 igmp esp ah comp gre".split()
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
SYN = _FLAGS["syn"]  # the flags of the first packet of a TCP connection


def nft_chains(
    objects: Iterable[dict[str, Any]],
    elements: Elements,
    skip: Iterable[TableKey] = (),
    path: Path = "input",
) -> tuple[FilterChain, ...]:
    """The chains of all foreign tables but those to `skip`."""
    chains: dict[tuple[str, str, str], dict[str, Any]] = {}
    rules: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    skipped = {("inet", name) for name in OWN_TABLES} | set(skip)
    for entry in objects:
        if chain := entry.get("chain"):
            if (chain["family"], chain["table"]) not in skipped and _concerns(chain, path):
                chains[chain["family"], chain["table"], chain["name"]] = chain
        elif rule := entry.get("rule"):
            rules[rule["family"], rule["table"], rule["chain"]].append(rule)
        elif (table := entry.get("table")) and "dormant" in (table.get("flags") or ()):
            skipped.add((table["family"], table["name"]))
    found: dict[tuple[str, str, str], FilterChain] = {}
    pending = [key for key, chain in chains.items() if "hook" in chain]
    while pending:
        key = pending.pop()
        if key in found or key not in chains:
            continue
        read = tuple(part for rule in rules[key] for part in _Rule(rule, elements).parts())
        policy = str(chains[key].get("policy", "accept")) if "hook" in chains[key] else ""
        found[key] = FilterChain("nft", *key, policy, read)
        pending += [(*key[:2], part.target) for part in read if part.target]
    return tuple(found[key] for key in chains if key in found)


def _concerns(chain: dict[str, Any], path: Path) -> bool:
    """Whether it is a base chain on the packets' path, or can be jumped to."""
    if chain["family"] not in ("inet", "ip", "ip6"):
        return False
    return "hook" not in chain or (chain["hook"] in HOOKS[path] and chain.get("type") == "filter")


class _Rule:
    """A rule in nft's JSON."""

    def __init__(self, rule: dict[str, Any], elements: Elements) -> None:
        self._rule, self._elements = rule, elements
        self._label = f"handle {rule['handle']}"

    def parts(self) -> list[FilterRule]:
        try:
            return list(self._parts())
        except NOT_UNDERSTOOD:
            return [FilterRule(self._label, (UNKNOWN,), "unknown")]

    def _parts(self) -> Iterator[FilterRule]:
        ways: list[tuple[Condition, ...]] = [()]  # any of which must be met
        for statement in self._rule.get("expr") or ():
            kind, value = next(iter(statement.items()))
            if kind == "match":
                ways = _both(ways, self._match(value["op"], value["left"], value["right"]))
            elif kind == "vmap":
                for conditions, verdict in self._verdict_map(value):
                    yield from self._made(_both(ways, [conditions]), verdict)
                return
            elif kind in _DECIDE:
                yield from self._made(ways, statement)
            elif kind not in _CONTINUE:
                ways = _both(ways, [(UNKNOWN,)])

    def _made(
        self, ways: list[tuple[Condition, ...]], statement: dict[str, Any]
    ) -> Iterator[FilterRule]:
        kind, value = next(iter(statement.items()))
        verdict: Verdict = _DECIDE.get(kind, "" if kind in _CONTINUE else "unknown")
        target = str(value["target"]) if verdict in ("jump", "goto") else ""
        yield from (FilterRule(self._label, way, verdict, target) for way in ways)

    def _verdict_map(
        self, vmap: dict[str, Any]
    ) -> Iterator[tuple[tuple[Condition, ...], dict[str, Any]]]:
        pairs = self._listed(vmap["data"])
        if pairs is None:
            yield (UNKNOWN,), {"queue": None}
        for key, verdict in pairs or ():
            for way in self._match("==", vmap["key"], key):
                yield way, verdict

    def _match(self, op: str, left: Any, right: Any) -> list[tuple[Condition, ...]]:
        if not isinstance(left, dict) or "concat" not in left:
            return [tuple(self._conditions(op, left, right))]
        values = self._listed(right)
        if values is None or op not in ("==", "in"):
            return [(UNKNOWN,)]
        ways = []
        for value in values:
            parts = _bare(value)
            if not isinstance(parts, dict) or len(parts.get("concat", ())) != len(left["concat"]):
                return [(UNKNOWN,)]
            pairs = zip(left["concat"], parts["concat"], strict=True)
            ways.append(
                tuple(c for one, other in pairs for c in self._conditions("==", one, other))
            )
        return ways or [(NEVER,)]

    def _conditions(self, op: str, left: Any, right: Any) -> Iterator[Condition]:
        if (flags := _flags_match(op, left, right)) is not None:
            yield Condition("transport", ("tcp",)) if flags else NEVER
            return
        key, implied = _property(left)
        yield from implied
        values = self._values(key, op, right)
        yield UNKNOWN if values is None else Condition(key, values, op == "!=")

    def _values(self, key: Key, op: str, right: Any) -> tuple[str, ...] | None:
        listed = self._listed(right)
        if key == "unknown" or listed is None:
            return None
        texts = [_text(key, value) for value in listed]
        if None in texts:
            return None
        values = tuple(text for text in texts if text is not None)
        if op in ("==", "in", "!="):
            return values
        return _compared(op, values[0]) if key in ("port", "source_port") else None

    def _listed(self, value: Any) -> list[Any] | None:
        """The values of an expression, of a set, or of a named set; None: not known."""
        if isinstance(value, str) and value.startswith("@"):
            return self._elements((self._rule["family"], self._rule["table"]), value[1:])
        if isinstance(value, dict) and "set" in value:
            members = value["set"]
            return members if isinstance(members, list) else [members]
        return value if isinstance(value, list) else [value]


def _both(
    ways: list[tuple[Condition, ...]], more: list[tuple[Condition, ...]]
) -> list[tuple[Condition, ...]]:
    if len(ways) * len(more) > _MOST:
        return [(*way, UNKNOWN) for way in ways]
    return [one + other for one, other in product(ways, more)]


def _property(left: Any) -> tuple[Key, list[Condition]]:
    """What an expression is about, and the conditions that it implies."""
    match left:
        case {"meta": {"key": key}} if key in _META:
            return _META[key], []
        case {"ct": {"key": "state"}}:
            return "ct_state", []
        case {"ct": {"key": "status"}}:
            return "ct_status", []
        case {"fib": {"result": "type", "flags": flags}} if "daddr" in flags:
            return "destination_type", []
        case {"payload": {"protocol": protocol, "field": name}}:
            implied = []
            if protocol in _FAMILIES:
                implied = [Condition("family", (_FAMILIES[protocol],))]
            elif protocol in _TRANSPORTS:
                implied = [Condition("transport", (protocol,))]
            return _PAYLOAD.get((protocol, name), "unknown"), implied
    return "unknown", []


def _bare(value: Any) -> Any:
    """An element without its counter or time."""
    return value["elem"]["val"] if isinstance(value, dict) and "elem" in value else value


def _text(key: Key, value: Any) -> str | None:
    value = _bare(value)
    match value:
        case {"range": [first, last]}:
            value = f"{first}-{last}"
        case {"prefix": {"addr": address, "len": length}}:
            value = f"{address}/{length}"
        case bool() | dict() | list() | None:
            return None
    text = str(value)
    if key == "family":
        return _FAMILIES.get(text)
    if key in ("port", "source_port") and not text.replace("-", "").isdecimal():
        return None
    return text


def _compared(op: str, value: str) -> tuple[str, ...] | None:
    """The ports that are less or greater than a value."""
    if "-" in value:
        return None
    port = int(value)
    first, last = {
        "<": (0, port - 1), "<=": (0, port), ">": (port + 1, 65535), ">=": (port, 65535),
    }.get(op, (0, -1))  # fmt: skip
    return (f"{first}-{last}",) if first <= last else None


def _flags_match(op: str, left: Any, right: Any) -> bool | None:
    """Whether a SYN matches a comparison of TCP flags; None if it isn't one."""
    masked = left["&"] if isinstance(left, dict) and "&" in left else [left, None]
    if masked[0] != {"payload": {"protocol": "tcp", "field": "flags"}}:
        return None
    mask = 0xFF if masked[1] is None else tcp_flags(masked[1])
    value = tcp_flags(right)
    if mask is None or value is None:
        return None
    if op == "in":
        return bool(SYN & value)
    return (SYN & mask == value) == (op == "==") if op in ("==", "!=") else None


def tcp_flags(value: Any) -> int | None:
    match value:
        case int():
            return value
        case str():
            return _FLAGS.get(value)
        case list(parts) | {"|": list(parts)} | {"set": list(parts)}:
            bits = 0
            for part in map(tcp_flags, parts):
                if part is None:
                    return None
                bits |= part
            return bits
    return None
