"""The providers' source filters (BCP 38), which also count misrouted packets.

Rules: a packet from a customer whose source isn't the provider's is counted, recorded and dropped,
as by real providers. Packets that aren't routed (link-local, DAD, DHCP, multicast) are exempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# only packets to this router's MAC: on a shared LAN it also receives broadcasts of others
_FROM_CUSTOMER = 'iifname "cust*" meta pkttype host'
_EXEMPT = {4: ("0.0.0.0", "169.254.0.0/16"), 6: ("::", "fe80::/10")}
_WORD = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, order=True, slots=True)
class Misrouted:
    """Packets that a provider refused, by their source. `port` is the host's (TCP and UDP)."""

    provider: str
    source: str
    protocol: str
    port: int
    packets: int


def source_filter(prefixes: Iterable[str], others: Iterable[str] = ()) -> str:
    """Return the nft table `bcp38` of a provider's router.

    `others`: where two providers announce the same address the source doesn't identify the uplink;
    then packets to clients that come in through another provider are the misrouted ones.
    """
    lines = []
    for family, word in _WORD.items():
        own = ", ".join((*_EXEMPT[family], *_of(family, prefixes)))
        lines.append(f"{_FROM_CUSTOMER} {word} saddr != {{ {own} }} goto misrouted")
        if clients := ", ".join(_of(family, others)):
            lines.append(f"{_FROM_CUSTOMER} {word} daddr {{ {clients} }} goto misrouted")
    rules = "\n    ".join(lines)
    return f"""\
table inet bcp38
delete table inet bcp38
table inet bcp38 {{
  counter misrouted {{
  }}
  set wrong4 {{
    typeof ip saddr . meta l4proto . th sport
    size 4096
    flags dynamic
    counter
  }}
  set wrong6 {{
    typeof ip6 saddr . meta l4proto . th sport
    size 4096
    flags dynamic
    counter
  }}
  chain misrouted {{
    counter name misrouted
    jump note
    drop
  }}
  chain note {{
    update @wrong4 {{ ip saddr . meta l4proto . th sport }}
    update @wrong6 {{ ip6 saddr . meta l4proto . th sport }}
  }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    {rules}
  }}
}}
"""


def parse_count(listing: Mapping[str, Any]) -> int:
    """Read `nft -j list counters table inet bcp38`."""
    counters = (item["counter"] for item in listing["nftables"] if "counter" in item)
    return sum(int(counter["packets"]) for counter in counters)


def parse_misrouted(provider: str, listing: Mapping[str, Any]) -> tuple[Misrouted, ...]:
    """Read `nft -j list table inet bcp38`."""
    misrouted = []
    for item in listing["nftables"]:
        for row in item.get("set", {}).get("elem", ()):
            source, protocol, port = row["elem"]["val"]["concat"]
            packets = int(row["elem"]["counter"]["packets"])
            misrouted.append(Misrouted(provider, source, str(protocol), int(port), packets))
    return tuple(sorted(misrouted))


def _of(family: int, prefixes: Iterable[str]) -> tuple[str, ...]:
    return tuple(prefix for prefix in prefixes if (":" in prefix) == (family == 6))
