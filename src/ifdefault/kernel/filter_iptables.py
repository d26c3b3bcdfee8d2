"""Packet filters as iptables lists them: `iptables-save` to `model.packet_filter`.

Rules: pure; iptables(8) and iptables-extensions(8) have the options. What isn't understood becomes
unknown.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ifdefault.kernel.filter_nft import SYN, tcp_flags
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

_TABLES = ("mangle", "filter", "security")
_BASES: dict[Path, set[tuple[str, str]]] = {
    "input": {
        *{("raw", "PREROUTING"), ("mangle", "PREROUTING")},
        *{(table, "INPUT") for table in _TABLES},
    },
    "forward": {(table, "FORWARD") for table in _TABLES},
}
_VERDICTS: dict[str, Verdict] = {
    "ACCEPT": "accept",
    "DROP": "drop",
    "REJECT": "drop",
    "RETURN": "return",
    "NOTRACK": "notrack",
    **dict.fromkeys(
        "LOG NFLOG ULOG MARK CONNMARK SECMARK CONNSECMARK TOS DSCP TTL HL TCPMSS CLASSIFY CHECKSUM "
        "SET TRACE AUDIT TEE IDLETIMER RATEEST LED CT".split(),
        "",
    ),
}
_MODULES = "tcp udp multiport conntrack state addrtype pkttype iprange comment".split()
_OPTIONS: dict[str, Key] = {
    "-i": "interface",
    "-o": "out_interface",
    "-p": "transport",
    "-s": "source",
    "-d": "destination",
    **dict.fromkeys(("--dport", "--dports"), "port"),
    **dict.fromkeys(("--sport", "--sports"), "source_port"),
    **dict.fromkeys(("--ctstate", "--state"), "ct_state"),
    "--ctstatus": "ct_status",
    "--dst-type": "destination_type",
    "--pkt-type": "packet_type",
    "--src-range": "source",
    "--dst-range": "destination",
}


def iptables_chains(saved: str, program: str, path: Path = "input") -> tuple[FilterChain, ...]:
    """The chains of all tables. `program`: the one that lists them, without "-save"."""
    family = "ip6" if program.startswith("ip6") else "ip"
    chains: list[FilterChain] = []
    table, policies, rules = "", dict[str, str](), dict[str, list[FilterRule]]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:], {}, {}
        elif line.startswith(":"):
            name, policy, *_ = [*line[1:].split(), "", ""]
            is_base = (table, name) in _BASES[path]
            policies[name] = policy.lower() if is_base else ""
            rules[name] = []
        elif line.startswith("-A ") and table != "nat":
            chain, _, text = line[3:].partition(" ")
            rules.setdefault(chain, []).append(_rule(line, text, policies))
        elif line == "COMMIT" and any(policies.values()):
            chains += [
                FilterChain(program, family, table, name, policies.get(name, ""), tuple(read))
                for name, read in rules.items()
            ]
    return tuple(chains)


def _rule(line: str, text: str, chains: dict[str, str]) -> FilterRule:
    try:
        return _read_rule(f"`{line}`", shlex.split(text), chains)
    except ValueError:  # of quotes, or options without all of their values
        return FilterRule(f"`{line}`", (UNKNOWN,), "unknown")


def _read_rule(label: str, words: list[str], chains: dict[str, str]) -> FilterRule:
    at = next((n for n, word in enumerate(words) if word in ("-j", "-g")), len(words))
    conditions = tuple(_conditions(words[:at]))
    if at + 1 >= len(words):
        return FilterRule(label, conditions)
    target = words[at + 1]
    if target in chains:
        return FilterRule(label, conditions, "goto" if words[at] == "-g" else "jump", target)
    if target == "CT" and "--notrack" in words[at:]:
        target = "NOTRACK"
    return FilterRule(label, conditions, _VERDICTS.get(target, "unknown"))


def _conditions(words: list[str]) -> Iterator[Condition]:
    for negated, option, values in _options(words):
        if not values:
            yield UNKNOWN
        elif option == "-m":
            if values[0] not in _MODULES:
                yield UNKNOWN
        elif option == "--tcp-flags":
            mask, flags = (tcp_flags(value.lower().split(",")) for value in values)
            if mask is None or flags is None:
                yield UNKNOWN
            elif (SYN & mask == flags) == negated:
                yield NEVER
        elif key := _OPTIONS.get(option):
            if values != ["all"]:
                yield Condition(key, _values(key, values[0]), negated)
        elif option != "--comment":
            yield UNKNOWN


def _options(words: list[str]) -> Iterator[tuple[bool, str, list[str]]]:
    """(negated, option, its values)."""
    negated, at = False, 0
    while at < len(words):
        if words[at] == "!":
            negated, at = True, at + 1
            continue
        end = at + 1
        while end < len(words) and words[end] != "!" and not words[end].startswith("-"):
            end += 1
        yield negated, words[at], words[at + 1 : end]
        negated, at = False, end


def _values(key: Key, text: str) -> tuple[str, ...]:
    match key:
        case "interface" | "out_interface":
            return (text.removesuffix("+") + "*" * text.endswith("+"),)
        case "port" | "source_port":
            return tuple(part.replace(":", "-") for part in text.split(","))
        case "ct_state" | "ct_status" | "destination_type":
            return tuple(text.lower().split(","))
    return (text,)
