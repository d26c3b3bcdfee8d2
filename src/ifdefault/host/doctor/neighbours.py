"""Who answers for an address on a link: ARP (RFC 826) and neighbour discovery (RFC 4861).

Rules: the kernel's neighbour table is neither used nor changed. All answers within the time are
collected: two different ones are two hosts with one address.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from ifdefault.kernel import packet_sockets
from ifdefault.kernel.rtnetlink import packed

_ARP = struct.Struct("!HHBBH6s4s6s4s")  # for Ethernet and IPv4
_ETHERNET, _IPV4 = 1, 0x0800
_ASK, _ANSWER = 1, 2
_SOLICIT = 135
_OPTION_SOURCE, _OPTION_TARGET = 1, 2
_TRIES, _EACH_S, _MORE_S = 3, 0.25, 0.15
_NOBODY = "0.0.0.0"


def ask_arp(
    dev: str, mac: str, address: str, sender: str = _NOBODY, tries: int = _TRIES
) -> tuple[str, ...]:
    """The MACs that answer for an IPv4 address. Without a `sender` it is an ARP probe, which nobody
    learns anything from (RFC 5227, 2.1.1). Raises OSError."""
    own, wanted = mac_bytes(mac), packed(address)
    question = _ARP.pack(_ETHERNET, _IPV4, 6, 4, _ASK, own, packed(sender), bytes(6), wanted)
    with packet_sockets.arp_socket(dev) as sock:

        def read(data: bytes) -> bytes:
            if len(data) < _ARP.size:
                return b""
            *_, operation, whose, protocol, _, _ = _ARP.unpack_from(data)
            return whose if (operation, protocol) == (_ANSWER, wanted) else b""

        return _collect(sock, lambda: packet_sockets.send_arp(sock, dev, question), read, tries)


def ask_nd(dev: str, mac: str, link_local: str, address: str) -> tuple[str, ...]:
    """The MACs that answer for an IPv6 address. Raises OSError."""
    wanted = packed(address)
    question = struct.pack("!BBHI", _SOLICIT, 0, 0, 0) + wanted
    question += bytes((_OPTION_SOURCE, 1)) + mac_bytes(mac)
    group = socket.inet_ntop(socket.AF_INET6, packed("ff02::1:ff00:0")[:13] + wanted[13:])
    scope = socket.if_nametoindex(dev)
    with packet_sockets.solicit_socket(dev, link_local) as sock:

        def read(data: bytes) -> bytes:
            if data[8:24] != wanted:
                return b""
            option = data[24:32]
            return option[2:8] if option[:2] == bytes((_OPTION_TARGET, 1)) else b""

        return _collect(sock, lambda: sock.sendto(question, (group, 0, 0, scope)), read)


def _collect(
    sock: socket.socket,
    send: Callable[[], object],
    read: Callable[[bytes], bytes],
    tries: int = _TRIES,
) -> tuple[str, ...]:
    """Ask until there is an answer, and wait a little for others."""
    found: dict[str, None] = {}
    for _ in range(tries):
        with suppress(BlockingIOError):
            send()
        until = time.monotonic() + _EACH_S
        while (left := until - time.monotonic()) > 0:
            if not select.select([sock], [], [], left)[0]:
                continue
            if mac := read(sock.recv(2048)):
                if not found:
                    until = time.monotonic() + _MORE_S
                found[mac.hex(":")] = None
        if found:
            break
    return tuple(found)


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
