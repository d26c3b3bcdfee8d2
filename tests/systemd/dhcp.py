"""Providers whose customers get addresses and routers by DHCP and by router advertisement.

Rules: dnsmasq's, which advertises a router as soon as a host asks for one, and refuses to renew
another address than that it is told to lease. Clients renew within seconds. It runs all the time: a
client that is told that nobody listens may not ask again for long.
"""

from __future__ import annotations

import signal

from ifdefault.lab.world import World

# RFC 2131, 4.4.5: a client renews at T1, and asks all servers at T2. dnsmasq's shortest lease is
# two minutes; it ignores a T1 below three seconds, and sends T2 less one. They are far apart, since
# systemd-networkd 257 moves both by up to a second: if both are due, it asks nobody for long.
_RENEWED_SOON = ("--dhcp-option-force=option:T1,3s", "--dhcp-option-force=option:T2,8s")
_PLAIN = "--keep-in-foreground --conf-file=/dev/null --user=root --pid-file --port=0".split()
_AUTHORITY = "--no-ping --dhcp-authoritative --leasefile-ro".split()


class Provider:
    """The DHCP server and router of one customer, an interface of the host."""

    def __init__(
        self, world: World, name: str, customer: str, address: str, prefix: str = "", *more: str
    ) -> None:
        """`address`: what it leases at first; `prefix`: the /64 that it advertises; `more`:
        options of dnsmasq."""
        (self._mac,) = (
            end.mac for pair in world.topology.links for end in pair if end.dev == customer
        )
        self._hosts, self._options = (world.dir / f"{name}.{what}" for what in ("hosts", "options"))
        self._log = world.dir / f"dnsmasq-{name}.log"
        gateway = dict(world[name].spec.addresses)["cust0"][0].partition("/")[0]
        self._set(address, gateway)
        command = ["dnsmasq", *_PLAIN, *_AUTHORITY, *_RENEWED_SOON]
        command += ["--interface=cust0", "--bind-dynamic", "--log-facility=-"]
        command += [f"--dhcp-range={gateway},static,2m"]
        command += [f"--dhcp-hostsfile={self._hosts}", f"--dhcp-optsfile={self._options}"]
        command += more
        if prefix:
            command += ["--enable-ra", "--ra-param=cust0,4,600"]
            command += [f"--dhcp-range={prefix},ra-only,64,2m"]
        with self._log.open("w") as log:
            self._server = world[name].popen(command, stdout=log, stderr=log)

    def lease(self, address: str, router: str) -> None:
        """Lease this address, and no other one from now on."""
        self._set(address, router)
        self._server.send_signal(signal.SIGHUP)

    def _set(self, address: str, router: str) -> None:
        self._hosts.write_text(f"{self._mac},{address}\n")
        self._options.write_text(f"option:router,{router}\n")
