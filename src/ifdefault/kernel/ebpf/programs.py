"""The programs on connect() as eBPF instructions: which socket gets which mark.

    of another namespace, marked, bound, or to this host itself?  -> unchanged
    of a cgroup that has an uplink?                                -> the cgroup's mark
    selected by an outgoing rule?                                  -> unchanged
    otherwise                                                      -> the mark of a slot

Rules: pure. What may change while programs stay attached is in maps: the marks of slots and of
cgroups; everything else is in the instructions. Registers: r6 context, r7 socket, r8 the first slot
of the destination's family (its counter is after its last slot), r9 the IPv4 destination.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

from ifdefault.kernel.ebpf.assembler import Assembler
from ifdefault.kernel.uapi import bpf
from ifdefault.model.config import Family
from ifdefault.model.kernel import SLOTS, Hook, Rule

FIRST_SLOT: dict[Family, int] = {4: 0, 6: SLOTS + 1}
NEVER = 2 * (SLOTS + 1)
LEVELS = 12  # maximum depth of a cgroup with an uplink

# struct bpf_sock_addr …
_USER_IP4, _USER_IP6, _USER_PORT, _TYPE, _SK = 4, (8, 12, 16, 20), 24, 32, 64
# … and struct bpf_sock, in linux/bpf.h
_BOUND_DEV_IF, _SK_FAMILY, _SK_TYPE, _SK_MARK = 0, 4, 8, 16
_SRC_IP4, _SRC_IP6 = 24, (28, 32, 36, 40)
# by IP protocol; MPTCP sockets are streams, too
_TYPES = {socket.IPPROTO_TCP: socket.SOCK_STREAM, socket.IPPROTO_UDP: socket.SOCK_DGRAM}

# destinations not reached by an uplink: this host, link-local, multicast, reserved
_EXEMPT4 = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
_EXEMPT6 = ("::/127", "fe80::/10", "ff00::/8")
_MAPPED = "::ffff:0:0/96"


def connect(hook: Hook, family: Family, cookie: int, state: int, cgroups: int) -> bytes:
    """The program for connect4 or connect6. `state` and `cgroups` are file descriptors of maps: of
    the slots' marks, and of the marks by cgroup id."""
    p = Assembler()
    p.load_map_value(
        2, state
    )  # even if unused: the map must belong to the program (see kernel.ebpf.attach)
    _enter(p, cookie)
    p.load(7, 6, _SK, bpf.BPF_DW)
    p.if_null(7, "out")  # required by the verifier
    _require_unmarked(p, hook, family)
    if family == 6:
        _unless_within(p, _MAPPED, "six", 6)
        p.load(9, 6, _USER_IP6[3])
        _exempt(p, 4)
        p.go("select")
        p.label("six")
        _exempt(p, 6)
    else:
        p.load(9, 6, _USER_IP4)
        _exempt(p, 4)
    p.label("select")
    if hook.cgroups:
        p.load(2, 6, _TYPE)
        p.unless_equal(2, socket.SOCK_STREAM, "no_cgroup")  # marked by sock_create
        _by_cgroup(p, cgroups, "no_cgroup")
        p.if_equal(8, 0, "mark4")
        p.load(2, 0, 4)
        p.go("mark")
        p.label("mark4")
        p.load(2, 0, 0)
        p.go("mark")
        p.label("no_cgroup")
    if hook.marks:
        _skip_selected(p, hook, family)
        _pick_slot(p, hook, state, family)
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
    return _finish(p)


def sock_create(cookie: int, cgroups: int) -> bytes:
    """The program that marks non-TCP sockets of cgroups that have an uplink. (A listening TCP
    socket would pass its mark on to accepted ones, whose replies must keep to their uplink.)"""
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
    return _finish(p)


def _enter(p: Assembler, cookie: int) -> None:
    """Ignore sockets of other network namespaces."""
    p.move(6, 1)
    p.call(bpf.BPF_FUNC_get_netns_cookie)
    p.wide(1, cookie)
    p.unless_same(0, 1, "out")


def _finish(p: Assembler) -> bytes:
    p.label("out")
    p.set(0, 1)  # allow the call
    p.exit()
    return p.assemble()


def _require_unmarked(p: Assembler, hook: Hook, family: Family) -> None:
    """Ignore sockets that are neither stream nor (with `udp`) datagram, are marked, or bound."""
    p.load(2, 6, _TYPE)
    p.if_equal(2, socket.SOCK_STREAM, "open")
    p.unless_equal(2, socket.SOCK_DGRAM if hook.udp else socket.SOCK_STREAM, "out")
    p.label("open")
    sources = (_SRC_IP4,) if family == 4 else _SRC_IP6
    for offset in (_SK_MARK, _BOUND_DEV_IF, *sources):
        p.load(2, 7, offset)
        p.unless_equal(2, 0, "out")


def _exempt(p: Assembler, family: Family) -> None:
    for prefix in _EXEMPT4 if family == 4 else _EXEMPT6:
        skip = p.unique("next")
        _unless_within(p, prefix, skip, family)
        p.go("out")
        p.label(skip)
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
    """r0 = address of the marks of the process's closest cgroup that has any; jump if none has."""
    for level in range(LEVELS, -1, -1):
        skip = p.unique("level")
        p.set(1, level)
        p.call(bpf.BPF_FUNC_get_current_ancestor_cgroup_id)
        p.if_null(0, skip)  # the process isn't that deep
        p.store(10, 0, -8, bpf.BPF_DW)
        p.load_map(1, cgroups)
        p.move(2, 10)
        p.alu64_imm(bpf.BPF_ADD, 2, -8)
        p.call(bpf.BPF_FUNC_map_lookup_elem)
        p.unless_null(0, "found")
        p.label(skip)
    p.go(otherwise)
    p.label("found")


def _skip_selected(p: Assembler, hook: Hook, family: Family) -> None:
    """Ignore what outgoing rules select. connect6 handles mapped IPv4 destinations as well."""
    six = [rule for rule in hook.spared if rule.family == 6] if family == 6 else []
    four = [rule for rule in hook.spared if rule.family == 4]
    if six:
        p.if_equal(8, FIRST_SLOT[4], "four")
        for rule in six:
            _skip_rule(p, rule)
        p.go("pick")
        p.label("four")
    elif four and family == 6:
        p.unless_equal(8, FIRST_SLOT[4], "pick")
    for rule in four:
        _skip_rule(p, rule)
    p.label("pick")


def _skip_rule(p: Assembler, rule: Rule) -> None:
    skip = p.unique("rule")
    if rule.ip_proto and rule.ip_proto not in _TYPES:
        return
    if rule.dst:
        _unless_within(p, rule.dst, skip, rule.family)
    if rule.ip_proto:
        p.load(2, 6, _TYPE)
        p.unless_equal(2, _TYPES[rule.ip_proto], skip)
    if any(rule.dport):
        p.load(2, 6, _USER_PORT)
        p.to_be16(2)
        p.if_below(2, rule.dport[0], skip)
        p.if_above(2, rule.dport[1], skip)
    if rule.uids != (-1, -1):
        p.call(bpf.BPF_FUNC_get_current_uid_gid)
        p.alu_reg(bpf.BPF_MOV, 2, 0)  # the lower half; the upper half is the gid
        p.if_below(2, rule.uids[0], skip)
        p.if_above(2, rule.uids[1], skip)
    # always true; but the verifier rejects unreachable instructions after a rule for everything
    p.unless_equal(8, NEVER, "out")
    p.label(skip)


def _pick_slot(p: Assembler, hook: Hook, state: int, family: Family) -> None:
    """r2 = the mark of a slot: the next one, or (`sticky`) the one of the destination."""
    if hook.sticky:
        _hash(p, family)
    else:
        _take_turn(p, state)
    p.alu_imm(bpf.BPF_MOD, 0, SLOTS)
    p.alu_imm(bpf.BPF_AND, 0, 0xFF)  # no change; the verifier requires a limit
    p.alu64_reg(bpf.BPF_ADD, 0, 8)
    p.alu64_imm(bpf.BPF_LSH, 0, 2)
    p.load_map_value(1, state)
    p.alu64_reg(bpf.BPF_ADD, 1, 0)
    p.load(2, 1, 0)


def _take_turn(p: Assembler, state: int) -> None:
    """r0 = the family's counter, which is incremented. Concurrent connections may get the same
    value, which is harmless and cheaper than atomic operations."""
    p.load_map_value(1, state)
    p.move(2, 8)
    p.alu64_imm(bpf.BPF_LSH, 2, 2)
    p.alu64_reg(bpf.BPF_ADD, 1, 2)
    p.load(0, 1, 4 * SLOTS)
    p.alu_reg(bpf.BPF_MOV, 2, 0)
    p.alu_imm(bpf.BPF_ADD, 2, 1)
    p.store(1, 2, 4 * SLOTS)


def _hash(p: Assembler, family: Family) -> None:
    """r0 = a hash of the destination (the finalizer of MurmurHash3)."""
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
