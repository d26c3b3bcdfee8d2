"""Providers whose customers get addresses and routers by DHCP and by router advertisement.

Rules: dnsmasq's, which advertises a router as soon as a host asks for one. Clients are told to
renew within seconds. A provider that leases another address refuses to renew the one before.
"""

from __future__ import annotations

from ifdefault.lab.world import World

# RFC 2131, 4.4.5: a client renews at T1. dnsmasq's shortest lease is two minutes.
_RENEWED_SOON = ("--dhcp-option-force=option:T1,2s", "--dhcp-option-force=option:T2,4s")
_PLAIN = "--keep-in-foreground --conf-file=/dev/null --user=root --pid-file --port=0".split()


def lease(world: World, provider: str, address: str, router: str = "") -> None:
    """Lease this address to whoever asks, and no other one from now on."""
    options = [f"--dhcp-range={address},{address},2m", *_RENEWED_SOON]
    options += ["--no-ping", "--dhcp-authoritative", "--leasefile-ro"]
    if router:
        options.append(f"--dhcp-option=option:router,{router}")
    _start(world, provider, "dhcp", options)


def advertise(world: World, provider: str, prefix: str) -> None:
    """Be the router of a /64."""
    options = ["--enable-ra", "--ra-param=cust0,4,600", f"--dhcp-range={prefix},ra-only,64,2m"]
    _start(world, provider, "ra", options)


def _start(world: World, provider: str, what: str, options: list[str]) -> None:
    name = f"{what}-{provider}"
    world.end(name)
    command = ["dnsmasq", *_PLAIN, "--interface=cust0", "--bind-dynamic", *options]
    with (world.dir / f"{name}.log").open("a") as log:
        world[provider].popen([*command, "--log-facility=-"], stdout=log, stderr=log, what=name)
