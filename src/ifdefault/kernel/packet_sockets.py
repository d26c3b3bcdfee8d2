"""Sockets below the routing of the kernel, to see what only traffic shows: packet(7), raw(7).

Rules: what is sent leaves by the named interface, to the named MAC, whatever rules, routes and
packet filters say. Nothing is changed in the kernel. Sockets are non-blocking. Needs CAP_NET_RAW.
"""

from __future__ import annotations

import fcntl
import socket
import struct

from ifdefault.kernel import open_probe_sockets
from ifdefault.kernel.uapi import socket as so
from ifdefault.model.config import Family

ETH_P_ARP = 0x0806
ETH_P = {4: 0x0800, 6: 0x86DD}  # linux/if_ether.h
BROADCAST = b"\xff" * 6
_HOPS = 255  # of neighbour discovery (RFC 4861, 7.1.1)


def arp_socket(dev: str) -> socket.socket:
    """Sends and receives ARP packets of an Ethernet interface."""
    sock = _packet_socket(ETH_P_ARP)
    sock.bind((dev, ETH_P_ARP))
    return sock


def send_arp(sock: socket.socket, dev: str, packet: bytes) -> None:
    sock.sendto(packet, (dev, ETH_P_ARP, 0, 0, BROADCAST))


def solicit_socket(dev: str, link_local: str) -> socket.socket:
    """Sends neighbour solicitations and receives advertisements."""
    sock = open_probe_sockets.icmp_socket(6, link_local, dev, types=(so.ND_NEIGHBOR_ADVERT,))
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
    return sock


def send_packet(dev: str, family: Family, mac: bytes, packet: bytes) -> None:
    """Send an IP packet as it is to a neighbour; `mac` is empty where the link has none. What
    comes in isn't received."""
    with _packet_socket(0) as sock:
        sock.sendto(packet, (dev, ETH_P[family], 0, 0, mac))


def error_socket(family: Family, address: str, dev: str, mark: int = 0) -> socket.socket:
    """As `open_probe_sockets.icmp_socket`, for packets that mustn't be fragmented; it also receives
    the errors of routers."""
    types: tuple[int, ...] = (so.ICMP_ECHOREPLY, so.ICMP_DEST_UNREACH)
    if family == 6:
        types = (so.ICMPV6_ECHO_REPLY, so.ICMPV6_DEST_UNREACH, so.ICMPV6_PKT_TOOBIG)
    sock = open_probe_sockets.icmp_socket(family, address, dev, mark, types=types)
    level, option = (
        (socket.IPPROTO_IP, so.IP_MTU_DISCOVER)
        if family == 4
        else (socket.IPPROTO_IPV6, so.IPV6_MTU_DISCOVER)
    )
    sock.setsockopt(level, option, so.IP_PMTUDISC_PROBE)
    return sock


def mtu(dev: str) -> int:
    """The MTU of an interface. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sI12x", dev.encode(), 0)  # struct ifreq
        reply = fcntl.ioctl(sock, so.SIOCGIFMTU, request)
    return int(struct.unpack_from("16xI", reply)[0])


def _packet_socket(protocol: int) -> socket.socket:
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_PACKET, kind, socket.htons(protocol))
