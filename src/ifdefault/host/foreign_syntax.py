"""What other programs' files say about policy rules and routing tables: ip(8) commands, the INI
sections of systemd-networkd and NetworkManager, and Shorewall's columns.

Rules: pure, and tolerant: what isn't understood, such as a shell variable, matches everything. A
statement is to be found again in the kernel, and by a reader in the file; nothing is decided from
it alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from itertools import pairwise
from typing import Literal

from ifdefault.model.config import OutgoingRule
from ifdefault.model.kernel import TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN, Rule

Names = Mapping[str, int]  # of tables
NAMES: Names = {"local": TABLE_LOCAL, "main": TABLE_MAIN, "default": TABLE_DEFAULT}
Known = tuple[tuple[str, object], ...]  # fields of a Rule


@dataclass(frozen=True, slots=True)
class Statement:
    """A line or a section. `known`: what is known of the rule, or the table of a route. `marks`:
    what Shorewall marks, if the config can say it, or why not."""

    program: str
    path: str
    line: int
    text: str
    known: Known = ()
    kind: Literal["rule", "route", "mark"] = "rule"
    name: str = ""  # of the table: a provider's
    marks: OutgoingRule | str = ""

    @property
    def table(self) -> int:
        """Its number, 0 if unknown."""
        number = dict(self.known).get("table")
        return number if isinstance(number, int) else 0

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def lays(self, rule: Rule) -> bool:
        """Whether a rule in the kernel may be this one."""
        matches = all(getattr(rule, key) == value for key, value in self.known)
        return self.kind == "rule" and bool(self.known) and matches


# --- tables ------------------------------------------------------------------------------------


def table_names(text: str) -> dict[str, int]:
    """rt_tables: a number and a name on each line."""
    rows = (line.partition("#")[0].split() for line in text.splitlines())
    return {row[1]: number for row in rows if len(row) > 1 and (number := _number(row[0])) >= 0}


def _number(text: str) -> int:
    """A number of the kernel's, which has 32 bits; -1 if it isn't one."""
    try:
        number = int(text, 0)
    except ValueError:
        return -1
    return number if number < 1 << 32 else -1


# --- ip(8) -------------------------------------------------------------------------------------

_IP = re.compile(r"(?:.*/)?ip|\$\{?IP\}?", re.IGNORECASE)
_ABOUT_IT = re.compile(r"ip\b.*\sr", re.IGNORECASE)
_VERBS = ("add", "del", "replace", "append", "change", "flush")
_ENDS = re.compile(r"[;&|<>]+|\d?>.*|then|do|fi|done")
_SELECTORS = {"src": "", "dst": "", "iif": "", "oif": "", "mark": 0}
_KEYS = {
    "from": "src",
    "to": "dst",
    "iif": "iif",
    "dev": "iif",
    "oif": "oif",
    "fwmark": "mark",
    "table": "table",
    "lookup": "table",
    "pref": "priority",
    "prio": "priority",
    "priority": "priority",
    "preference": "priority",
    "order": "priority",
}


def ip_commands(program: str, path: str, text: str, names: Names) -> Iterator[Statement]:
    """The commands about rules, and about routes of tables other than main, in a script or in
    ifupdown's options. Those that delete count, too."""
    for number, line in _logical_lines(text):
        words = _words(line) if _ABOUT_IT.search(line) else []
        for start, word in enumerate(words):
            is_ip = _IP.fullmatch(word.lstrip("-@(`$\"'") if "/" in word else word)
            if is_ip and (found := _ip_command(words[start + 1 :], names)):
                kind, known = found
                yield Statement(program, path, number, " ".join(line.split()), known, kind)
                break


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that a backslash continues, by the number of the first."""
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        yield first, pending + line
        pending = ""
    if pending:
        yield first, pending


def _words(line: str) -> list[str]:
    text = re.sub(r"([;&|]+|[()`])", r" \1 ", line)
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quote that another line closes
        words = text.partition("#")[0].split()
    return [inner for word in words for inner in (word.split() if " ip " in word else [word])]


def _ip_command(
    words: Sequence[str], names: Names
) -> tuple[Literal["rule", "route"], Known] | None:
    six = False
    words = list(words)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        six |= option in ("-6", "-inet6")
        if option in ("-f", "-family", "-n", "-netns") and words:
            six |= words.pop(0) == "inet6"
    if len(words) < 2:
        return None
    end = next((n for n, word in enumerate(words) if _ENDS.fullmatch(word)), len(words))
    thing, verb, *rest = (*words[:end], "", "")
    if not verb or not any(full.startswith(verb) for full in _VERBS):
        return None
    if thing in ("ru", "rul", "rule"):
        return "rule", rule_known(rest, names, six=six)
    if thing in ("r", "ro", "rou", "rout", "route"):
        table = next((b for a, b in pairwise(rest) if a == "table"), "main")
        if table in ("main", "254", "local", "255"):
            return None
        return "route", _known_table(table, names)
    return None


def rule_known(words: Sequence[str], names: Names, *, six: bool = False) -> Known:
    """What words such as `from 192.0.2.1 table 101` say of a rule."""
    known: dict[str, object] = dict(_SELECTORS)
    for word, value in pairwise(words):
        if (key := _KEYS.get(word)) is None:
            continue
        known.pop(key, None)
        if key == "table":
            known.update(_known_table(value, names))
        elif key in ("src", "dst"):
            prefix = canonical(value)
            six |= ":" in value
            known |= {} if prefix is None else {key: prefix}
        elif key in ("iif", "oif"):
            known |= {} if "$" in value else {key: value}
        elif (number := _number(value.partition("/")[0])) >= 0:
            known[key] = number
    return (*known.items(), ("family", 6 if six else 4))


def _known_table(text: str, names: Names) -> Known:
    number = names.get(text, _number(text))
    return (("table", number),) if number >= 0 else ()


def canonical(text: str) -> str | None:
    """A prefix as in a Rule; None if it isn't one."""
    if text in ("all", "any", "default"):
        return ""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    return str(network) if network.prefixlen else ""


# --- INI ---------------------------------------------------------------------------------------

_NETWORKD_WORDS = {
    "From": "from",
    "To": "to",
    "Table": "table",
    "Priority": "pref",
    "FirewallMark": "fwmark",
    "IncomingInterface": "iif",
    "OutgoingInterface": "oif",
}
Section = tuple[int, str, list[tuple[int, str, str]]]  # line, name, (line, key, value)


def sections(text: str) -> list[Section]:
    """The sections of an INI file, those of the same name apart."""
    found: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            found.append((number, line[1:-1], []))
        elif found and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found[-1][2].append((number, key.strip(), value.strip()))
    return found


def networkd(program: str, path: str, text: str, names: Names) -> Iterator[Statement]:
    """A .network file: rules, routes of a table, and the table of routes that are learned."""
    for line, name, rows in sections(text):
        keys = {key: value for _, key, value in rows}
        shown = " ".join([f"[{name}]", *(f"{key}={value}" for _, key, value in rows)])
        if name == "RoutingPolicyRule":
            words = [
                w for k, v in keys.items() if k in _NETWORKD_WORDS for w in (_NETWORKD_WORDS[k], v)
            ]
            both = keys.get("Family") == "both"
            known = rule_known(words, names, six=keys.get("Family") == "ipv6")
            known = tuple(row for row in known if not (both and row[0] == "family"))
            yield Statement(program, path, line, shown, known)
        elif name == "Route" and (table := keys.get("Table", "main")) not in ("main", "254"):
            yield Statement(program, path, line, shown, _known_table(table, names), "route")
        for number, key, value in rows:
            if key == "RouteTable":
                said = f"[{name}] {key}={value}"
                yield Statement(program, path, number, said, _known_table(value, names), "route")


def network_manager(program: str, path: str, text: str, names: Names) -> Iterator[Statement]:
    """A keyfile: nm-settings-keyfile(5)."""
    for _, name, rows in sections(text):
        six = name == "ipv6"
        for line, key, value in rows if name in ("ipv4", "ipv6") else ():
            shown = f"[{name}] {key}={value}"
            if re.fullmatch(r"routing-rule\d*", key):
                known = rule_known(value.replace(",", " ").split(), names, six=six)
                yield Statement(program, path, line, shown, known)
            elif key == "route-table" and value not in ("0", "254"):
                known = _known_table(value, names)
                yield Statement(program, path, line, shown, known, "route")
            elif re.fullmatch(r"route\d+_options", key) and (m := re.search(r"table=(\d+)", value)):
                known = _known_table(m[1], names)
                yield Statement(program, path, line, shown, known, "route")


# --- Shorewall ---------------------------------------------------------------------------------

_BALANCE_TABLE = 250  # Shorewall's, of providers that are balanced; fallback ones are in `default`
_EVERYWHERE = ("-", "0.0.0.0/0", "::/0", "all", "any")
_MARK = re.compile(r"(?:\d:)?MARK\((0x[0-9a-fA-F]+|\d+)(?:/\w+)?\)(?::[PFTIN]+)?")


def columns(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """The rows of a file, without comments and directives."""
    for number, line in _logical_lines(text):
        line = line.partition("#")[0].strip()
        if line and line[0] != "?":
            yield number, " ".join(line.split()), line.split()


def shorewall_providers(path: str, text: str, six: bool) -> Iterator[Statement]:
    family = ("family", 6 if six else 4)
    for number, line, row in columns(text):
        table = _number(row[1]) if len(row) > 4 else -1
        known: Known = (("table", table), family) if table > 0 else ()
        blank = Statement("Shorewall", path, number, line, known, name=row[0])
        yield blank
        for other in (_BALANCE_TABLE, TABLE_MAIN, TABLE_DEFAULT) if known else ():
            yield replace(blank, known=(("table", other), family), name="")


def shorewall_rules(path: str, text: str, six: bool, names: Names) -> Iterator[Statement]:
    """rtrules: source (or interface), destination, provider, priority, mark."""
    for number, line, row in columns(text):
        source, dest, provider, priority = (*row, "-", "-", "-", "-")[:4]
        known = dict(rule_known(("table", provider, "pref", priority.rstrip("!")), names, six=six))
        for key in ("src", "dst", "iif", "mark"):
            known.pop(key, None)
        for key, value in (("src", source), ("dst", dest)):
            if (prefix := canonical(value.strip("<>").partition("!")[0])) is not None:
                known[key] = prefix
        yield Statement("Shorewall", path, number, line, tuple(known.items()))


def shorewall_marks(path: str, text: str, six: bool) -> Iterator[Statement]:
    """mangle: the entries that mark packets for a provider."""
    for number, line, row in columns(text):
        if not (match := _MARK.fullmatch(row[0])):
            continue
        known = (("mark", _number(match[1])), ("family", 6 if six else 4))
        marks = _selected(row[1:])
        yield Statement("Shorewall", path, number, line, known, "mark", marks=marks)


def _selected(row: Sequence[str]) -> OutgoingRule | str:
    """What an entry selects: source, destination, protocol, destination port, and other columns."""
    source, dest, transport, ports, *others = (*row, "-", "-", "-", "-")
    if source not in (*_EVERYWHERE, "$FW", "fw"):
        return f"selects packets from {source}"
    if any(other != "-" for other in others):
        return "selects by columns that the config has no key for"
    transports = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp", "-": "", "all": ""}
    prefixes = [] if dest in _EVERYWHERE else [canonical(part) for part in dest.split(",")]
    found = [_ports(part) for part in ports.split(",")] if ports != "-" else []
    if transports.get(transport) is None or None in prefixes or None in found:
        return "isn't understood"
    over = transports[transport]
    if found and not over:
        return "selects ports without a protocol"
    return OutgoingRule(
        via=(),
        to=tuple(prefix for prefix in prefixes if prefix),
        transport="tcp" if over == "tcp" else "udp" if over else None,
        ports=tuple(pair for pair in found if pair),
    )


def _ports(text: str) -> tuple[int, int] | None:
    first, _, last = text.partition(":")
    pair = _number(first), _number(last or first)
    return pair if 0 < pair[0] <= pair[1] < 65535 else None
