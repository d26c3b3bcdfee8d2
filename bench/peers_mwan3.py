"""Rules like mwan3's, the usual way to do this with connection marks, for comparison.

Rules: they follow mwan3 2.11's iptables rules for two interfaces (mwan3_hook, its ifaces_in,
connected and rules chains; mark mask 0x3f00) and its policy rules. They are written for nftables,
which is faster than iptables' compatibility layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ifdefault.lab.node import Node

_NFT = """\
table inet mwan3 {
  set connected4 {
    type ipv4_addr
    flags interval
    elements = { 127.0.0.0/8, 192.168.1.0/24, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3 }
  }
  set connected6 {
    type ipv6_addr
    flags interval
    elements = { fd00:1::/64, fe80::/10, ff00::/8, 2001:db8:a::/48, 2001:db8:b::/48 }
  }
  chain iface_in_a {
    iifname "wan0" meta mark & 0x3f00 == 0 ip saddr @connected4 meta mark set meta mark | 0x3f00
    iifname "wan0" meta mark & 0x3f00 == 0 ip6 saddr @connected6 meta mark set meta mark | 0x3f00
    iifname "wan0" meta mark & 0x3f00 == 0 meta mark set meta mark | 0x100
  }
  chain iface_in_b {
    iifname "wan1" meta mark & 0x3f00 == 0 ip saddr @connected4 meta mark set meta mark | 0x3f00
    iifname "wan1" meta mark & 0x3f00 == 0 ip6 saddr @connected6 meta mark set meta mark | 0x3f00
    iifname "wan1" meta mark & 0x3f00 == 0 meta mark set meta mark | 0x200
  }
  chain ifaces_in {
    meta mark & 0x3f00 == 0 jump iface_in_a
    meta mark & 0x3f00 == 0 jump iface_in_b
  }
  chain mwan3_connected {
    ip daddr @connected4 meta mark set meta mark | 0x3f00
    ip6 daddr @connected6 meta mark set meta mark | 0x3f00
  }
  chain mwan3_rules {
    meta mark & 0x3f00 == 0 numgen random mod 1000 < 500 meta mark set meta mark | 0x100
    meta mark & 0x3f00 == 0 meta mark set meta mark | 0x200
  }
  chain mwan3_hook {
    icmpv6 type { 133, 134, 135, 136, 137 } return
    meta mark & 0x3f00 == 0 meta mark set ct mark & 0x3f00
    meta mark & 0x3f00 == 0 jump ifaces_in
    meta mark & 0x3f00 == 0 jump mwan3_connected
    meta mark & 0x3f00 == 0 jump mwan3_rules
    ct mark set meta mark & 0x3f00
    meta mark & 0x3f00 != 0x3f00 jump mwan3_connected
  }
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    jump mwan3_hook
  }
  chain output {
    type route hook output priority mangle; policy accept;
    jump mwan3_hook
  }
}
"""
_ROUTES = {
    "-4": """\
route add default via 203.0.113.1 dev wan0 table 1
route add 203.0.113.0/24 dev wan0 table 1
route add default via 198.51.100.1 dev wan1 table 2
route add 198.51.100.0/24 dev wan1 table 2
""",
    "-6": """\
route add default via 2001:db8:a::1 dev wan0 table 1
route add default via 2001:db8:b::1 dev wan1 table 2
""",
}
_RULES = """\
iif wan0 lookup 1 priority 1001
iif wan1 lookup 2 priority 1002
fwmark 0x100/0x3f00 lookup 1 priority 2001
fwmark 0x200/0x3f00 lookup 2 priority 2002
fwmark 0x3d00/0x3f00 blackhole priority 2061
fwmark 0x3e00/0x3f00 unreachable priority 2062
"""


@contextmanager
def mwan3_rules(host: Node) -> Iterator[None]:
    """Install these rules on a host of the world `two`, for a block."""
    rules = _RULES.splitlines()
    for option, routes in _ROUTES.items():
        host.ip(routes, option)
        host.ip("".join(f"rule add {rule}\n" for rule in rules), option)
    host.nft(_NFT)
    try:
        yield
    finally:
        host.nft("delete table inet mwan3\n")
        for option in _ROUTES:
            host.ip("".join(f"rule del {rule}\n" for rule in rules), option)
            host.ip("route flush table 1\nroute flush table 2\n", option)
