"""The lab's own servers: `python -m ifdefault.lab.serve ADDRESS…`, until ended.

Rules: one socket for every way in which a server can choose its source address; each echoes what
it receives. On request it also answers HTTP, and refuses DNS queries, as a target of probes.
Prints "ready" when all listen. Only the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from ifdefault.lab import ports

_BUFFER = 65536
_DNS, _DNS_HEADER_BYTES, _QR, _REFUSED = 53, 12, 0x80, 5  # RFC 1035, 4.1.1
_BURST = 64  # datagrams read at one wake-up
_PKTINFO_V4 = struct.Struct("=I4s4s")  # in_pktinfo: interface, address to answer from, destination
_PKTINFO_V6 = struct.Struct("=16sI")  # in6_pktinfo: destination, interface
_IP_PKTINFO = 8  # linux/in.h; Python has no name for it


async def echo_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BUFFER):
            writer.write(data)
            await writer.drain()
        writer.close()


async def answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request with the server's address, as the lab's nginx does."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        body = f"{writer.get_extra_info('sockname')[0]}\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


def echo_udp(sock: socket.socket) -> None:
    data, peer = sock.recvfrom(_BUFFER)
    sock.sendto(data, peer)


def refuse_dns(sock: socket.socket) -> None:
    query, peer = sock.recvfrom(_BUFFER)
    if len(query) >= _DNS_HEADER_BYTES and not query[2] & _QR:
        sock.sendto(query[:2] + bytes((query[2] | _QR, _REFUSED)) + query[4:], peer)


def echo_pktinfo(sock: socket.socket) -> None:
    data, ancillary, _, peer = sock.recvmsg(_BUFFER, socket.CMSG_SPACE(32))
    sock.sendmsg([data], [answer_from(*item) for item in ancillary], 0, peer)


def answer_from(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Use the destination of a datagram as the source of its answer.

    The interface is left to the kernel, as in dnsmasq and unbound.
    """
    if level == socket.IPPROTO_IP:
        _, _, destination = _PKTINFO_V4.unpack(data)
        return level, kind, _PKTINFO_V4.pack(0, destination, bytes(4))
    destination, _ = _PKTINFO_V6.unpack(data)
    return level, socket.IPV6_PKTINFO, _PKTINFO_V6.pack(destination, 0)


def open_udp(address: str, port: int, *, dual: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((address, port))
    return sock


def open_pktinfo(address: str) -> socket.socket:
    sock = open_udp(address, ports.UDP_PKTINFO)
    if ":" in address:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return sock


def drain(sock: socket.socket, echo: Callable[[socket.socket], None]) -> None:
    """Answer all received datagrams. Send errors are ignored; the client gets no answer."""
    for _ in range(_BURST):
        try:
            echo(sock)
        except BlockingIOError:
            return
        except OSError:
            continue


async def listen_tcp(*, http: bool) -> None:
    for address in ("0.0.0.0", "::"):
        await asyncio.start_server(echo_tcp, address, ports.TCP_ECHO, backlog=4096)
        if http:
            await asyncio.start_server(answer_http, address, ports.HTTP, backlog=4096)


async def serve(addresses: list[str], *, http: bool, dns: list[str]) -> None:
    echoes = [(open_udp(address, ports.UDP_BOUND), echo_udp) for address in addresses]
    echoes += [(open_udp(address, _DNS), refuse_dns) for address in dns]
    for wildcard in ("0.0.0.0", "::"):
        echoes.append((open_pktinfo(wildcard), echo_pktinfo))
        echoes.append((open_udp(wildcard, ports.UDP_WILDCARD), echo_udp))
    echoes.append((open_udp("::", ports.UDP_DUAL, dual=True), echo_udp))
    for sock, echo in echoes:
        asyncio.get_running_loop().add_reader(sock, drain, sock, echo)
    await listen_tcp(http=http)
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="*", type=lambda text: str(ip_address(text)))
    parser.add_argument("--http", action="store_true", help="answer on port 80 as well")
    parser.add_argument("--dns", action="append", default=[], help="refuse its DNS queries")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.addresses, http=arguments.http, dns=arguments.dns))


if __name__ == "__main__":
    main()
