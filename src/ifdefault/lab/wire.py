"""A wire between two tun devices: `python -m ifdefault.lab.wire NETNS DEV NETNS DEV`.

Rules: a tun device is a point-to-point link without gateway, MAC or ARP, like PPP's, which a veth
isn't. Packets into one come out of the other while this process runs.
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
    """Attach to an existing tun device, which then has a carrier."""
    with entered(netns):
        return attach_tun(dev)


def attach_tun(dev: str) -> int:
    """The same in the current namespace; a device that doesn't exist is created, for the life of
    this process."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", dev.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def carry(left: int, right: int) -> None:
    """Pass packets in both directions; those that a full device refuses are lost."""
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
    with contextlib.suppress(KeyboardInterrupt, OSError):  # the namespaces may be removed first
        carry(left, right)


if __name__ == "__main__":
    main()
