"""What the core does in place of the Internet: it answers as the targets of the probes. Pure.

Rules: an answer goes back by the provider that the question came by, as it does for the anycast
targets of life, even where several providers announce the asker's address. No conntrack here: it
would defragment whatever the core forwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from ifdefault.model.config import FAMILIES, HealthConfig, Probe

# ICMP and TCP answer with the mark of what they answer to; UDP gets it from a map of ours.
SYSCTLS = {
    "net.ipv4.fwmark_reflect": "1",
    "net.ipv6.fwmark_reflect": "1",
    "net.ipv4.tcp_fwmark_accept": "1",
}


def targets(probes: Iterable[Probe] = HealthConfig().probes) -> list[str]:
    """The targets of probes that are addresses, as addresses of the core's `lo`."""
    hosts = dict.fromkeys(probe.host for probe in probes)
    return [f"{host}/{128 if ':' in host else 32}" for host in hosts if _is_address(host)]


def returns(numbers: Iterable[tuple[str, int]]) -> str:
    """Return the nft table `returns`: a packet to the core itself bears its provider's number."""
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


# By the asker's port alone: nft 1.0.6 aborts where the key of an update is longer than 16 bytes.
_UDP_MAP = """\
  map udp{0} {{
    type inet_service : mark
    size 65536
    flags dynamic, timeout
    timeout 30s
  }}
"""
# What comes from port 53 answers the core's own resolver, and is no question.
_QUESTION = "    meta nfproto ipv{0} udp sport != 53 update @udp{0} {{ udp sport : meta mark }}\n"
_ANSWER = "    meta nfproto ipv{0} meta mark 0 meta mark set udp dport map @udp{0}\n"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
