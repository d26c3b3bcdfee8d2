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
import socket
import sys

from ifdefault.kernel.ebpf.assembler import Assembler
from ifdefault.kernel.uapi import bpf
from ifdefault.model.config import Family
from ifdefault.model.kernel import SLOTS, Hook, Rule

FIRST_SLOT: dict[Family, int] = {4: 0, 6: SLOTS}
NEVER = 2 * SLOTS
TURNS_AT = 4 * NEVER  # bytes: behind the slots, a counter a family
LEVELS = 12  # how deep a cgroup with an uplink of its own may be

# struct bpf_sock_addr …
_USER_IP4, _USER_IP6, _USER_PORT, _TYPE, _SK = 4, (8, 12, 16, 20), 24, 32, 64
# … and struct bpf_sock, in linux/bpf.h
_BOUND_DEV_IF, _SK_FAMILY, _SK_TYPE, _SK_MARK = 0, 4, 8, 16
_SRC_IP4, _SRC_IP6 = 24, (28, 32, 36, 40)
# by IP protocol; MPTCP is a stream as well
_TYPES = {socket.IPPROTO_TCP: socket.SOCK_STREAM, socket.IPPROTO_UDP: socket.SOCK_DGRAM}

# destinations that are no uplink's: this host, the link, groups, and what is no address
_NOWHERE4 = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
_NOWHERE6 = ("::/127", "fe80::/10", "ff00::/8")
_MAPPED = "::ffff:0:0/96"


def connect(hook: Hook, family: Family, cookie: int, state: int, cgroups: int) -> bytes:
    """The program for connect4 or connect6. `state` and `cgroups` are file descriptors of maps,
    whose first values are the slots' marks, and those of a cgroup's id."""
    p = Assembler()
    p.load_map_value(2, state)  # whether it is used or not: what stands is read from there
    _enter(p, cookie)
    p.load(7, 6, _SK, bpf.BPF_DW)
    p.if_null(7, "out")  # the verifier insists
    _sort_out(p, hook, family)
    if family == 6:
        _unless_within(p, _MAPPED, "six", 6)
        p.load(9, 6, _USER_IP6[3])
        _exempt(p, 4)
        p.go("choose")
        p.label("six")
        _exempt(p, 6)
    else:
        p.load(9, 6, _USER_IP4)
        _exempt(p, 4)
    p.label("choose")
    if hook.cgroups:
        p.load(2, 6, _TYPE)
        p.unless_equal(2, socket.SOCK_STREAM, "free")  # got its mark when it was made
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
    p.store(10, 2, -16)
    p.move(1, 6)
    p.set(2, socket.SOL_SOCKET)
    p.set(3, socket.SO_MARK)
    p.move(4, 10)
    p.alu64_imm(bpf.BPF_ADD, 4, -16)
    p.set(5, 4)
    p.call(bpf.BPF_FUNC_setsockopt)
    return _leave(p)


def sock_create(cookie: int, cgroups: int) -> bytes:
    """The program that marks what isn't TCP and comes from a cgroup that has an uplink. (A socket
    that listens would hand its mark to what it accepts, and answers must keep to their uplink.)"""
    p = Assembler()
    _enter(p, cookie)
    p.load(2, 6, _SK_TYPE)
    p.if_equal(2, socket.SOCK_STREAM, "out")
    _by_cgroup(p, cgroups, "out")
    p.load(3, 6, _SK_FAMILY)
    p.load(2, 0, 0)
    p.unless_equal(3, socket.AF_INET6, "mark")
    p.load(2, 0, 4)
    p.label("mark")
    p.if_equal(2, 0, "out")
    p.store(6, 2, _SK_MARK)
    return _leave(p)


def _enter(p: Assembler, cookie: int) -> None:
    """Others' network namespaces have uplinks of their own, or none."""
    p.move(6, 1)
    p.call(bpf.BPF_FUNC_get_netns_cookie)
    p.wide(1, cookie)
    p.unless_same(0, 1, "out")


def _leave(p: Assembler) -> bytes:
    p.label("out")
    p.set(0, 1)  # the call may go on
    p.exit()
    return p.assemble()


def _sort_out(p: Assembler, hook: Hook, family: Family) -> None:
    """Leave alone what is no stream (or datagram), is marked, or bound."""
    p.load(2, 6, _TYPE)
    p.if_equal(2, socket.SOCK_STREAM, "open")
    p.unless_equal(2, socket.SOCK_DGRAM if hook.udp else socket.SOCK_STREAM, "out")
    p.label("open")
    sources = (_SRC_IP4,) if family == 4 else _SRC_IP6
    for offset in (_SK_MARK, _BOUND_DEV_IF, *sources):
        p.load(2, 7, offset)
        p.unless_equal(2, 0, "out")


def _exempt(p: Assembler, family: Family) -> None:
    for prefix in _NOWHERE4 if family == 4 else _NOWHERE6:
        further = p.unique("further")
        _unless_within(p, prefix, further, family)
        p.go("out")
        p.label(further)
    p.set(8, FIRST_SLOT[family])


def _unless_within(p: Assembler, prefix: str, to: str, family: Family) -> None:
    """Jump if the destination isn't in a prefix."""
    network = ipaddress.ip_network(prefix)
    net, mask = network.network_address.packed, network.netmask.packed
    for n in range(0, len(net), 4):
        word, bits = (int.from_bytes(x[n : n + 4], sys.byteorder) for x in (net, mask))
        if not bits:
            return
        if family == 4:
            p.alu_reg(bpf.BPF_MOV, 2, 9)
        else:
            p.load(2, 6, _USER_IP6[n // 4])
        if bits != 0xFFFFFFFF:
            p.alu_imm(bpf.BPF_AND, 2, bits)
        p.unless_equal(2, word, to)


def _by_cgroup(p: Assembler, cgroups: int, otherwise: str) -> None:
    """Put into r0 where the marks of the nearest cgroup are that has some; jump if none has."""
    for level in range(LEVELS, -1, -1):
        further = p.unique("level")
        p.set(1, level)
        p.call(bpf.BPF_FUNC_get_current_ancestor_cgroup_id)
        p.if_null(0, further)  # the process isn't that deep
        p.store(10, 0, -8, bpf.BPF_DW)
        p.load_map(1, cgroups)
        p.move(2, 10)
        p.alu64_imm(bpf.BPF_ADD, 2, -8)
        p.call(bpf.BPF_FUNC_map_lookup_elem)
        p.unless_null(0, "found")
        p.label(further)
    p.go(otherwise)
    p.label("found")


def _spare(p: Assembler, hook: Hook, family: Family) -> None:
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


def _spare_one(p: Assembler, rule: Rule) -> None:
    further = p.unique("rule")
    if rule.ip_proto and rule.ip_proto not in _TYPES:
        return
    if rule.dst:
        _unless_within(p, rule.dst, further, rule.family)
    if rule.ip_proto:
        p.load(2, 6, _TYPE)
        p.unless_equal(2, _TYPES[rule.ip_proto], further)
    if any(rule.dport):
        p.load(2, 6, _USER_PORT)
        p.to_be16(2)
        p.if_below(2, rule.dport[0], further)
        p.if_above(2, rule.dport[1], further)
    if rule.uids != (-1, -1):
        p.call(bpf.BPF_FUNC_get_current_uid_gid)
        p.alu_reg(bpf.BPF_MOV, 2, 0)  # the lower half; the upper is the group
        p.if_below(2, rule.uids[0], further)
        p.if_above(2, rule.uids[1], further)
    # always; but the kernel wants a way to every instruction, where a rule selects all
    p.unless_equal(8, NEVER, "out")
    p.label(further)


def _draw(p: Assembler, hook: Hook, state: int, family: Family) -> None:
    """Put into r2 the mark of a slot: the next, or always the same for one destination."""
    if hook.sticky:
        _hash(p, family)
    else:
        _take_turn(p, state)
    p.alu_imm(bpf.BPF_AND, 0, SLOTS - 1)
    p.alu64_reg(bpf.BPF_ADD, 0, 8)
    p.alu64_imm(bpf.BPF_LSH, 0, 2)
    p.load_map_value(1, state)
    p.alu64_reg(bpf.BPF_ADD, 1, 0)
    p.load(2, 1, 0)


def _take_turn(p: Assembler, state: int) -> None:
    """Put into r0 how many have come before, in this family. Two at the very same time may get one
    turn, which is no harm, and cheaper than to keep them apart."""
    p.load_map_value(1, state)
    p.move(2, 8)
    p.alu64_imm(bpf.BPF_RSH, 2, 6)  # from the family's first slot to its counter
    p.alu64_reg(bpf.BPF_ADD, 1, 2)
    p.load(0, 1, TURNS_AT)
    p.alu_reg(bpf.BPF_MOV, 2, 0)
    p.alu_imm(bpf.BPF_ADD, 2, 1)
    p.store(1, 2, TURNS_AT)


def _hash(p: Assembler, family: Family) -> None:
    """Mix the destination's bits into r0, as MurmurHash3 does."""
    if family == 4:
        p.alu_reg(bpf.BPF_MOV, 0, 9)
    else:
        p.load(0, 6, _USER_IP6[3])
        p.if_equal(8, FIRST_SLOT[4], "mix")
        for offset in _USER_IP6[:3]:
            p.alu_imm(bpf.BPF_MUL, 0, 0xCC9E2D51)
            p.load(2, 6, offset)
            p.alu_reg(bpf.BPF_XOR, 0, 2)
        p.label("mix")
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        p.alu_reg(bpf.BPF_MOV, 2, 0)
        p.alu_imm(bpf.BPF_RSH, 2, shift)
        p.alu_reg(bpf.BPF_XOR, 0, 2)
        p.alu_imm(bpf.BPF_MUL, 0, factor)
    p.alu_imm(bpf.BPF_RSH, 0, 24)
