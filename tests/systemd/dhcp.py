"""Providers that lease addresses: DHCP and router advertisements, by dnsmasq.

Rules: as short-lived as dnsmasq allows, so that clients renew within seconds. A provider that is
started again knows no lease, and refuses the addresses of the one before.
"""

from __future__ import annotations

from ifdefault.lab import services
from ifdefault.lab.world import World

# its shortest lease is two minutes; RFC 2131: a client renews at T1 and asks all servers at T2
_TIMERS = ("--dhcp-option-force=option:T1,3s", "--dhcp-option-force=option:T2,5s")
_QUIET = "--port=0 --no-ping --dhcp-authoritative --leasefile-ro --log-dhcp --log-facility=-".split()


def lease(world: World, provider: str, address: str, *options: str, prefix: str = "") -> None:
    """Lease this address to whoever asks, from now on, and advertise a /64."""
    world.end(f"dhcp-{provider}")
    command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file"]
    command += [*_QUIET, *_TIMERS, "--interface=cust0", "--bind-dynamic"]
    command += [f"--dhcp-range={address},{address},2m", *options]
    if prefix:
        command += ["--enable-ra", "--ra-param=cust0,4,60", f"--dhcp-range={prefix},ra-only,64,2m"]
    node = world[provider]
    with (world.dir / f"dhcp-{provider}.log").open("a") as log:
        node.popen(command, stdout=log, stderr=log, what=f"dhcp-{provider}")
