"""A middlebox that mirrors the options of MPTCP: `python -m ifdefault.lab.mirror DEV`.

Rules: packets routed into the tun device DEV come out of it, and are routed on. The SYN-ACK of a
connection bears the MPTCP option of its SYN, whatever the server's own was, as if it were a server
that copies options that it doesn't know (RFC 8684, 3.7). All other packets stay as they are. The
device exists while this process runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator

from ifdefault.lab.attempts import checksum
from ifdefault.lab.wire import attach_tun

_MTU_MAX = 65536
_FLAGS_AT, _OPTIONS_AT = 13, 20  # in a TCP header
_SYN, _ACK, _SYN_ACK = 0x02, 0x10, 0x12
_END, _NOP, _MPTCP = 0, 1, 30  # kinds of options


class Mirror:
    """Remembers the MPTCP option of each SYN, by addresses and ports."""

    def __init__(self) -> None:
        self._asked: dict[tuple[bytes, bytes], bytes] = {}

    def passed(self, packet: bytes) -> bytes:
        """The packet as it leaves the middlebox."""
        v6 = packet[0] >> 4 == 6
        at = 40 if v6 else 4 * (packet[0] & 15)
        if packet[6 if v6 else 9] != socket.IPPROTO_TCP or len(packet) < at + _OPTIONS_AT:
            return packet
        tcp, width = packet[at:], 16 if v6 else 4
        ends = packet[8 if v6 else 12 :]
        sender = ends[:width] + tcp[0:2], ends[width : 2 * width] + tcp[2:4]
        flags = tcp[_FLAGS_AT] & _SYN_ACK
        if flags == _SYN:
            self._asked[sender] = b"".join(o for o in _options(tcp) if o[0] == _MPTCP)
        elif flags == _SYN_ACK and (asked := self._asked.get(sender[::-1])):
            return _rebuilt(packet[:at], _with_option(tcp, asked), v6)
        return packet


def _options(tcp: bytes) -> Iterator[bytes]:
    options = tcp[_OPTIONS_AT : 4 * (tcp[12] >> 4)]
    while options and options[0] != _END:
        length = 1 if options[0] == _NOP else max(2, options[1])
        yield options[:length]
        options = options[length:]


def _with_option(tcp: bytes, option: bytes) -> bytes:
    others = b"".join(o for o in _options(tcp) if o[0] not in (_MPTCP, _NOP))
    options = others + option
    options += bytes([_NOP]) * (-len(options) % 4)
    data = tcp[4 * (tcp[12] >> 4) :]
    length = (_OPTIONS_AT + len(options)) // 4
    return tcp[:12] + bytes([length << 4]) + tcp[13:16] + bytes(2) + tcp[18:20] + options + data


def _rebuilt(header: bytes, tcp: bytes, v6: bool) -> bytes:
    """The packet with the lengths and checksums of its new segment."""
    size = len(tcp)
    if v6:
        header = header[:4] + struct.pack("!H", size) + header[6:]
        pseudo = header[8:40] + struct.pack("!II", size, socket.IPPROTO_TCP)
    else:
        header = (
            header[:2]
            + struct.pack("!H", len(header) + size)
            + header[4:10]
            + bytes(2)
            + header[12:]
        )
        header = header[:10] + checksum(header).to_bytes(2) + header[12:]
        pseudo = header[12:20] + struct.pack("!HH", socket.IPPROTO_TCP, size)
    value = checksum(pseudo + tcp + bytes(size % 2))
    return header + tcp[:16] + value.to_bytes(2) + tcp[18:]


def main() -> None:
    fd = attach_tun(sys.argv[1])
    os.set_blocking(fd, True)
    mirror = Mirror()
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            packet = mirror.passed(os.read(fd, _MTU_MAX))
            with contextlib.suppress(OSError):  # the device may be down
                os.write(fd, packet)


if __name__ == "__main__":
    main()
