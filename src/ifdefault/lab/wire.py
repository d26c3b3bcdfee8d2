"""A wire between two tun devices: `python -m ifdefault.lab.wire NETNS DEV NETNS DEV`.

Rules: a tun device is a point-to-point link without gateway, MAC or ARP, as PPP's are; a veth
can't be. The packets of one come out of the other, while this process runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import struct
import sys

from ifdefault.lab.netns import entered

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_MTU_MAX = 65536


def open_tun(netns: str, dev: str) -> int:
    """Attach to a tun device that is there already; it has a carrier from now on."""
    with entered(netns):
        return attach_tun(dev)


def attach_tun(dev: str) -> int:
    """The same where we are; a device that isn't there yet is made, for as long as we live."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", dev.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def carry(left: int, right: int) -> None:
    """Pass packets to and fro; what a full device doesn't take is lost, as on any wire."""
    selector = selectors.DefaultSelector()
    selector.register(left, selectors.EVENT_READ, right)
    selector.register(right, selectors.EVENT_READ, left)
    while True:
        for key, _ in selector.select():
            with contextlib.suppress(BlockingIOError):
                os.write(key.data, os.read(key.fd, _MTU_MAX))


def main() -> None:
    left, right = open_tun(*sys.argv[1:3]), open_tun(*sys.argv[3:5])
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt, OSError):  # the namespaces may go first
        carry(left, right)


if __name__ == "__main__":
    main()
