"""Other programs' packet filters, as far as they decide about packets to this host or through it.

Rules: as in `model.kernel`. One form for nftables and iptables; what can't be expressed in it is
kept as unknown, so that nothing false is concluded from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Path = Literal["input", "forward"]  # to this host, or through it
# What a condition is about; "unknown": something that isn't evaluated.
Key = Literal[
    "interface",
    "out_interface",
    "family",
    "transport",
    "source",
    "destination",
    "source_port",
    "port",
    "destination_type",
    "packet_type",
    "ct_state",
    "ct_status",
    "unknown",
]
# "": the rule decides nothing. "unknown": it decides something that isn't evaluated.
Verdict = Literal["", "accept", "drop", "return", "jump", "goto", "notrack", "unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether a property of a packet is one of `values`, or none of them (`negated`). Ports may be
    ranges ("1-1024"), addresses prefixes or ranges, and an interface may end in "*"."""

    key: Key
    values: tuple[str, ...] = ()
    negated: bool = False


UNKNOWN = Condition("unknown")
NEVER = Condition("transport")


@dataclass(frozen=True, slots=True)
class FilterRule:
    """A rule: all conditions must be met. `label` is how its program refers to it."""

    label: str
    conditions: tuple[Condition, ...] = ()
    verdict: Verdict = ""
    target: str = ""  # the chain of a jump or goto


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A chain. `program` is the one that lists it ("nft", "iptables", …); `policy`: "accept" or
    "drop" for a base chain on the packets' path, "" for others."""

    program: str
    family: str  # inet, ip, ip6
    table: str
    name: str
    policy: str = ""
    rules: tuple[FilterRule, ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignMark:
    """How a rule in another program's ruleset uses packet or connection marks: it changes or
    compares `bits`. `value`: what it sets or compares the whole mark with, if that is known."""

    where: str
    bits: int
    sets: bool = False
    value: int | None = None


WHOLE_MARK = 0xFFFFFFFF
