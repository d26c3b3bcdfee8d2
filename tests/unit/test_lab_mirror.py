"""The middlebox that mirrors options: a SYN-ACK has the MPTCP option of its SYN, and is valid."""

from __future__ import annotations

import socket
import struct

import pytest

from ifdefault.lab.attempts import checksum
from ifdefault.lab.mirror import Mirror, _rebuilt

CLIENT = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
SERVER = {4: "203.0.113.10", 6: "2001:db8:a::10"}
ASKED = bytes.fromhex("1e040100")  # MP_CAPABLE of a SYN, and of a SYN-ACK with a key
ANSWERED = bytes.fromhex("1e0c0100") + bytes(8)
MSS, SACK, NOP = bytes.fromhex("020405b4"), bytes.fromhex("0402"), b"\1"
SYN, SYN_ACK, PUSH = 0x02, 0x12, 0x18


def packet(
    family: int, source: str, target: str, flags: int, options: bytes, data: bytes = b""
) -> bytes:
    af = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    ends = socket.inet_pton(af, source) + socket.inet_pton(af, target)
    ports = (80, 5000) if source == SERVER[family] else (5000, 80)
    offset = (20 + len(options)) // 4 << 4
    tcp = struct.pack("!HHIIBBHHH", *ports, 1, 2, offset, flags, 99, 0, 0) + options + data
    if family == 6:
        header = struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + ends
    else:
        length = 20 + len(tcp)
        header = struct.pack("!BBHIBBH", 0x45, 0, length, 0, 64, socket.IPPROTO_TCP, 0) + ends
    return _rebuilt(header, tcp, family == 6)


def is_valid(packet: bytes) -> bool:
    """Its checksums are right, and its lengths."""
    if packet[0] >> 4 == 6:
        tcp, ends, length = packet[40:], packet[8:40], 40 + int.from_bytes(packet[4:6])
    else:
        tcp, ends, length = packet[20:], packet[12:20], int.from_bytes(packet[2:4])
        if checksum(packet[:20]):
            return False
    pseudo = ends + struct.pack("!II", len(tcp), socket.IPPROTO_TCP)
    return length == len(packet) and checksum(pseudo + tcp + bytes(len(tcp) % 2)) == 0


@pytest.mark.parametrize("family", [4, 6])
def test_a_syn_ack_mirrors_its_syn(family: int) -> None:
    mirror = Mirror()
    ends = CLIENT[family], SERVER[family]
    syn = packet(family, *ends, SYN, MSS + SACK + NOP + NOP + ASKED)
    answer = packet(family, *ends[::-1], SYN_ACK, MSS + SACK + NOP + NOP + ANSWERED)
    assert is_valid(syn)
    assert is_valid(answer)
    assert mirror.passed(syn) == syn
    mirrored = mirror.passed(answer)
    assert mirrored == packet(family, *ends[::-1], SYN_ACK, MSS + SACK + ASKED + NOP + NOP)
    assert is_valid(mirrored)
    plain = packet(family, *ends[::-1], SYN_ACK, MSS)
    assert mirror.passed(plain) == packet(family, *ends[::-1], SYN_ACK, MSS + ASKED)


@pytest.mark.parametrize("family", [4, 6])
def test_all_else_passes_as_it_is(family: int) -> None:
    mirror = Mirror()
    ends = CLIENT[family], SERVER[family]
    for kept in (
        packet(family, *ends[::-1], SYN_ACK, MSS + ANSWERED),  # its SYN wasn't seen
        packet(family, *ends, SYN, MSS),
        packet(family, *ends[::-1], SYN_ACK, MSS + ANSWERED),  # its SYN had none
        packet(family, *ends, PUSH, ANSWERED, b"odd"),
        packet(family, *ends, PUSH, b"")[:-10],
    ):
        assert mirror.passed(kept) == kept
