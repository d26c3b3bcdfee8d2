"""The outcome of a probe, and whose fault a failure is.

Rules: an error that the kernel returns at once, before a packet was sent, is this host's ("local")
and no evidence about the path; a later one comes from the network. A refusal counts as an answer
only if the target itself sent it, since a gateway that has lost its provider refuses as well.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass

from ifdefault.model.health import Verdict

_QUEUED = ((socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25))  # IP_RECVERR, IPV6_RECVERR
_ERROR = struct.Struct("=IBBBxII")  # linux/errqueue.h, struct sock_extended_err
_ICMP = (2, 3)  # its origins: ICMP, ICMPv6


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """The outcome of one probe. `detail` is for display, and may contain text from a server."""

    verdict: Verdict
    rtt_us: int = 0
    detail: str = ""


class ProbeError(Exception):
    """The probe failed; the verdict says whose fault that is."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.outcome = ProbeOutcome(verdict, 0, detail)


def us_since(start_ns: int) -> int:
    return (time.monotonic_ns() - start_ns) // 1000


def words(code: int | None) -> str:
    return os.strerror(code or 0).lower()


def local(error: OSError) -> ProbeOutcome:
    """The outcome when the kernel refused to send."""
    return ProbeOutcome("local", 0, words(error.errno))


def want_errors(sock: socket.socket) -> None:
    """Have the kernel report which router an ICMP error came from (ip(7), IP_RECVERR)."""
    level, option = _QUEUED[sock.family == socket.AF_INET6]
    sock.setsockopt(level, option, 1)


def raise_error(sock: socket.socket, code: int, target: str) -> None:
    """Raise a network error as ProbeError; return if the target itself refused."""
    offender = _offender(sock)
    if offender == target or (not offender and code == errno.ECONNREFUSED):
        return
    # ECONNABORTED: this host killed the connection, as it does on dead uplinks
    # (kernel.kill_connections)
    verdict: Verdict = "local" if code == errno.ECONNABORTED else "lost"
    raise ProbeError(verdict, words(code) + (f" (from {offender})" if offender else ""))


def _offender(sock: socket.socket) -> str:
    """Who sent the ICMP error that the socket failed with; "" if it wasn't an ICMP error."""
    try:
        _, ancillary, _, _ = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return ""
    for level, kind, data in ancillary:
        if (level, kind) in _QUEUED and len(data) >= _ERROR.size and data[4] in _ICMP:
            return _read_address(data[_ERROR.size :])
    return ""


def _read_address(data: bytes) -> str:
    family = struct.unpack_from("=H", data)[0] if len(data) >= 2 else 0
    if family == socket.AF_INET and len(data) >= 8:
        return socket.inet_ntop(family, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(family, data[8:24])
    return ""
