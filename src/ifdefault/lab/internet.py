"""The core's part as the Internet: it answers for the targets of the probes. Pure.

Rules: an answer leaves by the provider that the request came in by, as with real anycast targets,
even if several providers announce the client's address. No conntrack here: it would defragment
everything that the core forwards.
"""

from __future__ import annotations

from collections.abc import Iterable

from ifdefault.model.address import is_address
from ifdefault.model.config import FAMILIES, HealthConfig, Probe

# ICMP and TCP answer with the mark of the request; UDP gets it from a map.
SYSCTLS = {
    "net.ipv4.fwmark_reflect": "1",
    "net.ipv6.fwmark_reflect": "1",
    "net.ipv4.tcp_fwmark_accept": "1",
}


def targets(probes: Iterable[Probe] = HealthConfig().probes) -> list[str]:
    """The probes' targets that are addresses, for the core's `lo`."""
    hosts = dict.fromkeys(probe.host for probe in probes)
    return [f"{host}/{128 if ':' in host else 32}" for host in hosts if is_address(host)]


def returns(numbers: Iterable[tuple[str, int]]) -> str:
    """Return the nft table `returns`: packets to the core itself get their provider's number as
    mark."""
    marks = [f'    iifname "{name}" meta mark set {number}\n' for name, number in numbers]
    maps = [_UDP_MAP.format(family) for family in FAMILIES]
    questions = [_QUESTION.format(family) for family in FAMILIES]
    answers = [_ANSWER.format(family) for family in FAMILIES]
    return f"""\
table inet returns
delete table inet returns
table inet returns {{
{"".join(maps)}\
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    fib daddr type != local accept
{"".join(marks + questions)}\
  }}
  chain output {{
    type route hook output priority mangle; policy accept;
{"".join(answers)}\
  }}
}}
"""


# By the client's port alone: nft 1.0.6 aborts if the key of an update is longer than 16 bytes.
_UDP_MAP = """\
  map udp{0} {{
    type inet_service : mark
    size 65536
    flags dynamic, timeout
    timeout 30s
  }}
"""
# Packets from port 53 are answers to the core's own resolver.
_QUESTION = "    meta nfproto ipv{0} udp sport != 53 update @udp{0} {{ udp sport : meta mark }}\n"
_ANSWER = "    meta nfproto ipv{0} meta mark 0 meta mark set udp dport map @udp{0}\n"
