"""The programs of the hook, as eBPF instructions: who is given which mark when it connects.

    another namespace's, marked, bound, or to this host itself?  -> left alone
    of a cgroup that has an uplink?                               -> its mark
    selected by an outgoing rule?                                 -> left alone
    else                                                          -> the mark of a slot

Rules: pure. What may change while programs stay attached is in maps: the slots' marks, and the
marks of cgroups; all else is in the instructions. Registers: r6 context, r7 socket, r8 the first
slot of the destination's family, r9 the IPv4 destination.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from dataclasses import dataclass, field

from ifdefault.model.config import Family
from ifdefault.model.kernel import SLOTS, Hook, Rule

FIRST_SLOT: dict[Family, int] = {4: 0, 6: SLOTS}
NEVER = 2 * SLOTS
TURNS_AT = 4 * NEVER  # bytes: behind the slots, a counter a family
LEVELS = 12  # how deep a cgroup with an uplink of its own may be

# linux/bpf.h: helpers …
_LOOKUP, _UID, _SETSOCKOPT, _NETNS_COOKIE, _ANCESTOR = 1, 15, 49, 122, 123
# … struct bpf_sock_addr …
_IP4, _IP6, _PORT, _TYPE, _SOCKET = 4, (8, 12, 16, 20), 24, 32, 64
# … and struct bpf_sock
_DEVICE, _SK_FAMILY, _SK_TYPE, _MARK, _SOURCE4, _SOURCE6 = 0, 4, 8, 16, 24, (28, 32, 36, 40)
_STREAM, _DATAGRAM = 1, 2
_TYPES = {6: _STREAM, 17: _DATAGRAM}  # by IP protocol; MPTCP is a stream as well
_SOL_SOCKET, _SO_MARK = (0xFFFF, 0x20) if sys.platform.startswith("sparc") else (1, 36)
_AF_INET6 = 10

# destinations that are no uplink's: this host, the link, groups, and what is no address
_NOWHERE4 = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
_NOWHERE6 = ("::/127", "fe80::/10", "ff00::/8")
_MAPPED = "::ffff:0:0/96"


@dataclass(slots=True)
class Program:
    """Instructions that are written one after the other; a jump names a label, placed later."""

    code: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    jumps: list[tuple[int, str]] = field(default_factory=list)
    fresh: int = 0

    def put(self, op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self.code.append((op, dst, src, off, imm))

    def jump(self, op: int, to: str, dst: int = 0, src: int = 0, imm: int = 0) -> None:
        self.jumps.append((len(self.code), to))
        self.put(op, dst, src, 0, imm)

    def label(self, name: str) -> None:
        self.labels[name] = len(self.code)

    def unique(self, name: str) -> str:
        self.fresh += 1
        return f"{name}{self.fresh}"

    def wide(self, dst: int, value: int, src: int = 0) -> None:
        """Load 64 bits; `src` 1: a map, 2: its only value, by file descriptor."""
        self.put(0x18, dst, src, 0, value & 0xFFFFFFFF)
        self.put(0, 0, 0, 0, value >> 32)

    def assemble(self) -> bytes:
        for at, name in self.jumps:
            op, dst, src, _, imm = self.code[at]
            self.code[at] = (op, dst, src, self.labels[name] - at - 1, imm)
        return b"".join(
            struct.pack("=BBhI", op, src << 4 | dst, off, imm & 0xFFFFFFFF)
            for op, dst, src, off, imm in self.code
        )

    # --- what reads as a sentence -----------------------------------------------------------

    def move(self, dst: int, src: int) -> None:
        self.put(0xBF, dst, src)

    def set(self, dst: int, imm: int) -> None:
        self.put(0xB4, dst, imm=imm)

    def load(self, dst: int, src: int, off: int) -> None:
        self.put(0x61, dst, src, off)

    def call(self, helper: int) -> None:
        self.put(0x85, imm=helper)

    def go(self, to: str) -> None:
        self.jump(0x05, to)

    def if_equal(self, dst: int, imm: int, to: str) -> None:
        self.jump(0x16, to, dst, imm=imm)

    def unless_equal(self, dst: int, imm: int, to: str) -> None:
        self.jump(0x56, to, dst, imm=imm)

    def if_below(self, dst: int, imm: int, to: str) -> None:
        self.jump(0xA6, to, dst, imm=imm)

    def if_above(self, dst: int, imm: int, to: str) -> None:
        self.jump(0x26, to, dst, imm=imm)


def connect(hook: Hook, family: Family, cookie: int, state: int, cgroups: int) -> bytes:
    """The program for connect4 or connect6. `state` and `cgroups` are file descriptors of maps,
    whose first values are the slots' marks, and those of a cgroup's id."""
    p = Program()
    p.wide(2, state, 2)  # whether it is used or not: what stands is read from there
    _enter(p, cookie)
    p.put(0x79, 7, 6, _SOCKET)
    p.jump(0x15, "out", 7)  # the verifier insists
    _sort_out(p, hook, family)
    if family == 6:
        _unless_within(p, _MAPPED, "six", 6)
        p.load(9, 6, _IP6[3])
        _exempt(p, 4)
        p.go("choose")
        p.label("six")
        _exempt(p, 6)
    else:
        p.load(9, 6, _IP4)
        _exempt(p, 4)
    p.label("choose")
    if hook.cgroups:
        p.load(2, 6, _TYPE)
        p.unless_equal(2, _STREAM, "free")  # got its mark when it was made
        _by_cgroup(p, cgroups, "free")
        p.if_equal(8, 0, "mark4")
        p.load(2, 0, 4)
        p.go("mark")
        p.label("mark4")
        p.load(2, 0, 0)
        p.go("mark")
        p.label("free")
    if hook.marks:
        _spare(p, hook, family)
        _draw(p, hook, state, family)
    else:
        p.go("out")
    p.label("mark")
    p.if_equal(2, 0, "out")
    p.put(0x63, 10, 2, -16)
    p.move(1, 6)
    p.set(2, _SOL_SOCKET)
    p.set(3, _SO_MARK)
    p.move(4, 10)
    p.put(0x07, 4, imm=-16)
    p.set(5, 4)
    p.call(_SETSOCKOPT)
    return _leave(p)


def sock_create(cookie: int, cgroups: int) -> bytes:
    """The program that marks what isn't TCP and comes from a cgroup that has an uplink. (A socket
    that listens would hand its mark to what it accepts, and answers must keep to their uplink.)"""
    p = Program()
    _enter(p, cookie)
    p.load(2, 6, _SK_TYPE)
    p.if_equal(2, _STREAM, "out")
    _by_cgroup(p, cgroups, "out")
    p.load(3, 6, _SK_FAMILY)
    p.load(2, 0, 0)
    p.unless_equal(3, _AF_INET6, "mark")
    p.load(2, 0, 4)
    p.label("mark")
    p.if_equal(2, 0, "out")
    p.put(0x63, 6, 2, _MARK)
    return _leave(p)


def _enter(p: Program, cookie: int) -> None:
    """Others' network namespaces have uplinks of their own, or none."""
    p.move(6, 1)
    p.call(_NETNS_COOKIE)
    p.wide(1, cookie)
    p.jump(0x5D, "out", 0, 1)


def _leave(p: Program) -> bytes:
    p.label("out")
    p.set(0, 1)  # the call may go on
    p.put(0x95)
    return p.assemble()


def _sort_out(p: Program, hook: Hook, family: Family) -> None:
    """Leave alone what is no stream (or datagram), is marked, or bound."""
    p.load(2, 6, _TYPE)
    p.if_equal(2, _STREAM, "open")
    p.unless_equal(2, _DATAGRAM if hook.udp else _STREAM, "out")
    p.label("open")
    sources = (_SOURCE4,) if family == 4 else _SOURCE6
    for offset in (_MARK, _DEVICE, *sources):
        p.load(2, 7, offset)
        p.unless_equal(2, 0, "out")


def _exempt(p: Program, family: Family) -> None:
    for prefix in _NOWHERE4 if family == 4 else _NOWHERE6:
        further = p.unique("further")
        _unless_within(p, prefix, further, family)
        p.go("out")
        p.label(further)
    p.set(8, FIRST_SLOT[family])


def _unless_within(p: Program, prefix: str, to: str, family: Family) -> None:
    """Jump if the destination isn't in a prefix."""
    network = ipaddress.ip_network(prefix)
    net, mask = network.network_address.packed, network.netmask.packed
    for n in range(0, len(net), 4):
        word, bits = (int.from_bytes(x[n : n + 4], sys.byteorder) for x in (net, mask))
        if not bits:
            return
        if family == 4:
            p.put(0xBC, 2, 9)
        else:
            p.load(2, 6, _IP6[n // 4])
        if bits != 0xFFFFFFFF:
            p.put(0x54, 2, imm=bits)
        p.unless_equal(2, word, to)


def _by_cgroup(p: Program, cgroups: int, otherwise: str) -> None:
    """Put into r0 where the marks of the nearest cgroup are that has some; jump if none has."""
    for level in range(LEVELS, -1, -1):
        further = p.unique("level")
        p.set(1, level)
        p.call(_ANCESTOR)
        p.jump(0x15, further, 0)  # the process isn't that deep
        p.put(0x7B, 10, 0, -8)
        p.wide(1, cgroups, 1)
        p.move(2, 10)
        p.put(0x07, 2, imm=-8)
        p.call(_LOOKUP)
        p.jump(0x55, "found", 0)
        p.label(further)
    p.go(otherwise)
    p.label("found")


def _spare(p: Program, hook: Hook, family: Family) -> None:
    """Leave to the rules what they select. connect6 sees IPv4 destinations as well."""
    six = [rule for rule in hook.spared if rule.family == 6] if family == 6 else []
    four = [rule for rule in hook.spared if rule.family == 4]
    if six:
        p.if_equal(8, FIRST_SLOT[4], "four")
        for rule in six:
            _spare_one(p, rule)
        p.go("draw")
        p.label("four")
    elif four and family == 6:
        p.unless_equal(8, FIRST_SLOT[4], "draw")
    for rule in four:
        _spare_one(p, rule)
    p.label("draw")


def _spare_one(p: Program, rule: Rule) -> None:
    further = p.unique("rule")
    if rule.ip_proto and rule.ip_proto not in _TYPES:
        return
    if rule.dst:
        _unless_within(p, rule.dst, further, rule.family)
    if rule.ip_proto:
        p.load(2, 6, _TYPE)
        p.unless_equal(2, _TYPES[rule.ip_proto], further)
    if any(rule.dport):
        p.load(2, 6, _PORT)
        p.put(0xDC, 2, imm=16)  # to big endian, and so from it
        p.if_below(2, rule.dport[0], further)
        p.if_above(2, rule.dport[1], further)
    if rule.uids != (-1, -1):
        p.call(_UID)
        p.put(0xBC, 2, 0)  # the lower half; the upper is the group
        p.if_below(2, rule.uids[0], further)
        p.if_above(2, rule.uids[1], further)
    # always; but the kernel wants a way to every instruction, where a rule selects all
    p.unless_equal(8, NEVER, "out")
    p.label(further)


def _draw(p: Program, hook: Hook, state: int, family: Family) -> None:
    """Put into r2 the mark of a slot: the next, or always the same for one destination."""
    if hook.sticky:
        _hash(p, family)
    else:
        _take_turn(p, state)
    p.put(0x54, 0, imm=SLOTS - 1)
    p.put(0x0F, 0, 8)
    p.put(0x67, 0, imm=2)
    p.wide(1, state, 2)
    p.put(0x0F, 1, 0)
    p.load(2, 1, 0)


def _take_turn(p: Program, state: int) -> None:
    """Put into r0 how many have come before, in this family. Two at the very same time may get one
    turn, which is no harm, and cheaper than to keep them apart."""
    p.wide(1, state, 2)
    p.move(2, 8)
    p.put(0x77, 2, imm=6)  # from the family's first slot to its counter
    p.put(0x0F, 1, 2)
    p.load(0, 1, TURNS_AT)
    p.put(0xBC, 2, 0)
    p.put(0x04, 2, imm=1)
    p.put(0x63, 1, 2, TURNS_AT)


def _hash(p: Program, family: Family) -> None:
    """Mix the destination's bits into r0, as MurmurHash3 does."""
    if family == 4:
        p.put(0xBC, 0, 9)
    else:
        p.load(0, 6, _IP6[3])
        p.if_equal(8, FIRST_SLOT[4], "mix")
        for offset in _IP6[:3]:
            p.put(0x24, 0, imm=0xCC9E2D51)
            p.load(2, 6, offset)
            p.put(0xAC, 0, 2)
        p.label("mix")
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        p.put(0xBC, 2, 0)
        p.put(0x74, 2, imm=shift)
        p.put(0xAC, 0, 2)
        p.put(0x24, 0, imm=factor)
    p.put(0x74, 0, imm=24)
