"""The address and port that the Internet sees a way by, and so the kind of NAT before it.

Rules: the services of `dns.discover` are asked, and a STUN server (RFC 8489) if one is named. STUN
tells the port as well. Nothing else is asked.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from ifdefault.config.probe_url import parse_url
from ifdefault.dns import client
from ifdefault.dns.wire import WireError
from ifdefault.host.doctor.ways import subject
from ifdefault.kernel import open_probe_sockets
from ifdefault.kernel.rtnetlink import AF
from ifdefault.model.address import family_of, is_private
from ifdefault.model.config import Family, Probe
from ifdefault.model.dns import DISCOVER
from ifdefault.model.findings import Finding
from ifdefault.model.health import Way

# a resolver that is among the default probes, and answers with the address that it was asked from
OPENDNS = {
    4: ("208.67.222.222", "dns://208.67.222.222/myip.opendns.com"),
    6: ("2620:119:35::35", "dns://[2620:119:35::35]/myip.opendns.com"),
}
_CGNAT = ip_network("100.64.0.0/10")  # RFC 6598
_EACH_S, _TRIES = 1.0, 2
_HTTP_S, _BODY = 4.0, 256
STUN_PORT = 3478
_STUN = struct.Struct("!HHI12s")
_BINDING, _SUCCESS, _COOKIE = 0x0001, 0x0101, 0x2112A442
_XOR_MAPPED_ADDRESS, _MAPPED_ADDRESS = 0x0020, 0x0001


@dataclass(frozen=True, slots=True)
class Seen:
    """`port` 0: not told; `own_port`: what it was on this host."""

    address: str
    by: str
    port: int = 0
    own_port: int = 0


def examine(
    way: Way,
    configured: Sequence[str],
    services: Sequence[str],
    stun: tuple[str, int] | None,
    *,
    names: bool,
) -> Iterator[Finding]:
    """`configured`: the uplink's `public`; `names`: whether there are names to publish."""
    seen = look(way, services, stun)
    about, family = subject(way.uplink, way.family), way.family
    if seen is None:
        yield from _unseen(way, configured, bool(services or stun))
        return
    wanted = [each for each in configured if each != DISCOVER and family_of(each) == family]
    if seen.address == way.address:
        yield Finding("fact", about, f"public address {seen.address}, no NAT (by {seen.by})")
    else:
        kind = _kind(seen, family)
        yield Finding("fact", about, f"public address {seen.address}, {kind} (by {seen.by})")
    if (
        is_private(way.address)
        and ip_address(way.address) in _CGNAT
        and seen.address != way.address
    ):
        yield _cgnat(way)
    published = wanted or [way.address] if names and DISCOVER not in configured else wanted
    if seen.address not in published and published and not is_private(published[0]):
        where = f"uplink.{way.uplink}.public"
        yield Finding(
            "error",
            about,
            f"the Internet sees {seen.address}, but {', '.join(published)} is published",
            f'set {where} = "{seen.address}", or "{DISCOVER}", and run `ifdefault reload`',
            "Whoever uses the published address doesn't reach this host, or by another way.",
        )


def _unseen(way: Way, configured: Sequence[str], asked: bool) -> Iterator[Finding]:
    about = subject(way.uplink, way.family)
    if not is_private(way.address):
        return
    if way.family == 4 and ip_address(way.address) in _CGNAT:
        yield _cgnat(way)
        return
    known = [each for each in configured if each != DISCOVER]
    if known:
        yield Finding("note", about, f"behind NAT, as {known[0]} by the config; not verified")
    elif asked:
        what = f"{way.address} is private, and no service tells the public address"
        yield Finding("note", about, what, "set dns.discover to services that answer here")
    else:
        what = f"{way.address} is private, so there is NAT; public address unknown"
        yield Finding("note", about, what, "set dns.discover, or name a STUN server with --stun")


def _cgnat(way: Way) -> Finding:
    return Finding(
        "warning",
        subject(way.uplink, way.family),
        f"{way.address} is behind the provider's carrier-grade NAT (RFC 6598)",
        "ask the provider for a public address, or serve over IPv6 or a tunnel",
        "Nobody can connect to this uplink from the Internet.",
    )


def _kind(seen: Seen, family: Family) -> str:
    if family == 6:
        return "prefix translation (NPTv6) or NAT66"
    if not seen.port:
        return "behind NAT"
    if seen.port == seen.own_port:
        return "1:1 NAT, or NAPT that keeps ports"
    return f"NAPT (port {seen.own_port} became {seen.port})"


# --- asking -------------------------------------------------------------------------------


def look(way: Way, services: Sequence[str], stun: tuple[str, int] | None) -> Seen | None:
    """The first answer with a public address."""
    if stun and (seen := _stun(way, *stun)):
        return seen
    for service in map(parse_url, services):
        for address in _addresses(service.host, way.family)[:1]:
            try:
                text = _dns(way, service, address) or _http(way, service, address)
            except (OSError, WireError, ValueError, http.client.HTTPException):
                continue
            if text and family_of(text) == way.family and not is_private(text):
                return Seen(text, str(service))
    return None


def _addresses(host: str, family: Family) -> list[str]:
    try:
        return [str(a)] if (a := ip_address(host)).version == family else []
    except ValueError:
        pass
    try:
        rows = socket.getaddrinfo(host, None, AF[family], socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in rows]


def _dns(way: Way, service: Probe, address: str) -> str:
    if service.kind != "dns":
        return ""
    number = int.from_bytes(os.urandom(2), "big")
    query = client.query(number, service.path, "A" if way.family == 4 else "AAAA", recurse=True)
    for data in _datagrams(way, address, service.port, query):
        answer = client.read_answer(data, query)
        if answer is not None:
            return answer.texts[0] if answer.texts else ""
    return ""


def _datagrams(way: Way, address: str, port: int, message: bytes) -> Iterator[bytes]:
    """What comes back from a server, asked twice."""
    with _bound(way, stream=False) as sock:
        sock.settimeout(_EACH_S)
        sock.connect((address, port))
        for _ in range(_TRIES):
            sock.send(message)
            try:
                yield sock.recv(2048)
            except TimeoutError:
                continue


def _bound(way: Way, *, stream: bool) -> socket.socket:
    make = open_probe_sockets.stream_socket if stream else open_probe_sockets.datagram_socket
    return make(way.family, way.address, way.dev, way.mark)


def _http(way: Way, service: Probe, address: str) -> str:
    if service.kind not in ("http", "https"):
        return ""
    with _bound(way, stream=True) as sock:
        sock.settimeout(_HTTP_S)
        sock.connect((address, service.port))
        secure = service.kind == "https"
        plain: socket.socket = sock
        if secure:
            plain = ssl.create_default_context().wrap_socket(sock, server_hostname=service.host)
        with plain:
            connection = http.client.HTTPConnection(service.host, service.port)
            connection.sock = plain
            connection.request("GET", service.path, headers={"Connection": "close"})
            response = connection.getresponse()
            text = response.read(_BODY).decode("ascii", "replace").strip()
    return str(ip_address(text)) if response.status == 200 else ""


def _stun(way: Way, host: str, port: int) -> Seen | None:
    for address in _addresses(host, way.family)[:1]:
        transaction = os.urandom(12)
        request = _STUN.pack(_BINDING, 0, _COOKIE, transaction)
        try:
            with _bound(way, stream=False) as sock:
                sock.settimeout(_EACH_S)
                sock.connect((address, port))
                own_port = sock.getsockname()[1]
                for _ in range(_TRIES):
                    sock.send(request)
                    try:
                        mapped = read_stun(sock.recv(2048), transaction)
                    except TimeoutError:
                        continue
                    if mapped:
                        return Seen(mapped[0], f"stun:{host}", mapped[1], own_port)
        except OSError:
            continue
    return None


def read_stun(message: bytes, transaction: bytes) -> tuple[str, int] | None:
    """The address and port in a binding response; None if it isn't ours (RFC 8489, 14.2)."""
    if len(message) < _STUN.size:
        return None
    kind, length, cookie, number = _STUN.unpack_from(message)
    if (kind, cookie, number) != (_SUCCESS, _COOKIE, transaction):
        return None
    mask = message[4:20]
    at, end, plain = _STUN.size, min(len(message), _STUN.size + length), None
    while at + 4 <= end:
        attribute, size = struct.unpack_from("!HH", message, at)
        value = message[at + 4 : at + 4 + size]
        if attribute in (_XOR_MAPPED_ADDRESS, _MAPPED_ADDRESS) and len(value) in (8, 20):
            packed = value[4:]
            port = int.from_bytes(value[2:4], "big")
            if attribute == _XOR_MAPPED_ADDRESS:
                packed = bytes(a ^ b for a, b in zip(packed, mask, strict=False))
                return socket.inet_ntop(_af(packed), packed), port ^ (_COOKIE >> 16)
            plain = socket.inet_ntop(_af(packed), packed), port
        at += 4 + -(-size // 4) * 4
    return plain


def _af(packed: bytes) -> socket.AddressFamily:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6
