"""The hook on connect(): programs that are attached to the root of the cgroup hierarchy.

Rules: they outlive us, and are found by their name, which holds their network namespace's cookie;
other namespaces' are never touched. What they were made for is kept in the kernel, in a map of
theirs. New programs are attached before old ones are detached: a socket that the one has marked is
left alone by the other. Where marks alone change, the map is written, and nothing is attached.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

from ifdefault.kernel.ebpf import cgroups, programs, syscall
from ifdefault.kernel.uapi import bpf
from ifdefault.kernel.uapi.socket import SO_NETNS_COOKIE
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import HostError
from ifdefault.model.kernel import SLOTS, Hook, Rule

_CONNECT: dict[Family, int] = {
    4: bpf.BPF_CGROUP_INET4_CONNECT,
    6: bpf.BPF_CGROUP_INET6_CONNECT,
}
_PLACES = (*_CONNECT.values(), bpf.BPF_CGROUP_INET_SOCK_CREATE)
_STATE, _CGROUPS = "ifd_state", "ifd_cgroups"
_ROOM = 16384  # of the text in which a hook is kept, at least
_MOST_CGROUPS = 1024
_FIRST = struct.pack("=I", 0)  # the key of a map that has one value
_SLOTS = struct.Struct(f"={len(FAMILIES) * SLOTS}I")
_TURNS = bytes(4 * len(FAMILIES))  # which the programs count
_TEXT_AT = _SLOTS.size + len(_TURNS)
_LENGTH, _ID, _MARKS = struct.Struct("=I"), struct.Struct("=Q"), struct.Struct("=II")
# what stands, and isn't whole, or isn't what this version would make
_OTHER = Hook(mask=0)


@dataclass(frozen=True, slots=True)
class Attached:
    """One of our programs."""

    place: int
    program: int  # its id
    maps: tuple[int, ...]


def read() -> Hook | None:
    """The hook of this network namespace; one that equals no other where something is amiss with
    it, None where there is none or none can be."""
    try:
        found = find()
        return _read(found) if found else None
    except (HostError, OSError):
        return None  # no cgroup v2, no BPF, or no right to it


def put(hook: Hook | None) -> None:
    """Lay the hook, or replace it by this one; None takes it away. OSError if the kernel won't."""
    old = find()
    with ExitStack() as stack:
        if hook is None or not _update(stack, old, hook):
            if hook is not None:
                _attach(stack, hook)
            _detach(old)


def remove() -> None:
    _detach(find())


def find() -> list[Attached]:
    """Those of this network namespace's programs that are attached."""
    return list(_ours())


def unavailable() -> str:
    """Why this process can't lay a hook; "" if it can."""
    try:
        _try()
    except HostError as error:
        return error.problems[0].what
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return "it takes CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, see packaging/balance.conf"
        if error.errno in (errno.ENOSYS, errno.EINVAL):
            return f"this kernel lacks what it takes, Linux 5.8 with CONFIG_CGROUP_BPF ({error})"
        return f"the kernel refuses it: {error.strerror or error}"
    return ""


@functools.cache  # of what succeeds
def _try() -> None:
    """All that it takes, but for attaching."""
    list(syscall.attached(cgroups.root(), bpf.BPF_CGROUP_INET4_CONNECT))
    with suppress(FileNotFoundError):
        os.close(syscall.program_by_id(0))
    with ExitStack() as stack:
        blank = tuple((family, (0,) * SLOTS) for family in FAMILIES)
        _load(stack, Hook(mask=0, marks=blank, cgroups=(("/", 0, 0),)), 0)


# --- which are ours -----------------------------------------------------------------------


def _cookie() -> int:
    """By which the kernel knows this thread's network namespace; never given twice."""
    with socket.socket(socket.AF_UNIX) as sock:
        told = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, _ID.size)
    return int(_ID.unpack(told)[0])


def _name(cookie: int) -> str:
    return f"ifd{cookie & 0xFFFFFFFFFFFF:012x}"  # the kernel's names have 15 characters


def _ours() -> Iterator[Attached]:
    root, name = cgroups.root(), _name(_cookie())
    for place in _PLACES:
        for number in syscall.attached(root, place):
            try:
                fd = syscall.program_by_id(number)
            except FileNotFoundError:
                continue  # detached in between
            try:
                info = syscall.program_info(fd)
            finally:
                os.close(fd)
            if info.name == name:
                yield Attached(place, number, info.maps)


def _map(stack: ExitStack, found: list[Attached], wanted: str) -> tuple[int, int]:
    """A descriptor of the map of this name, and the size of its values."""
    for number in dict.fromkeys(number for each in found for number in each.maps):
        fd = syscall.map_by_id(number)
        stack.callback(os.close, fd)
        name, _, value_bytes = syscall.map_info(fd)
        if name == wanted:
            return fd, value_bytes
    raise FileNotFoundError(errno.ENOENT, "no such map")


# --- what they hold -----------------------------------------------------------------------


def _read(found: list[Attached]) -> Hook:
    with ExitStack() as stack:
        hook, code = _held(stack, found)
        if code != _code(hook) or sorted(each.place for each in found) != _places(hook):
            return _OTHER
        if hook.cgroups:
            there, _ = _map(stack, found, _CGROUPS)
            held = {
                key: syscall.lookup(there, key, _MARKS.size)
                for key in syscall.keys(there, _ID.size)
            }
            if not _marks_by_id(hook).items() <= held.items():  # the ids of dead ones do no harm
                return _OTHER  # a cgroup came, or was made anew
        return hook


def _held(stack: ExitStack, found: list[Attached]) -> tuple[Hook, str]:
    """The hook that programs were made for, and the digest of their instructions."""
    try:
        state, size = _map(stack, found, _STATE)
        return _decode(syscall.lookup(state, _FIRST, size)[_TEXT_AT:])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return _OTHER, ""  # of another version


def _places(hook: Hook) -> list[int]:
    return sorted(_PLACES if hook.cgroups else _CONNECT.values())


def _marks_by_id(hook: Hook) -> dict[bytes, bytes]:
    found = ((cgroups.number(path), marks) for path, *marks in hook.cgroups)
    return {_ID.pack(number): _MARKS.pack(*marks) for number, marks in found if number}


@functools.lru_cache(2)
def _decode(value: bytes) -> tuple[Hook, str]:
    (length,) = _LENGTH.unpack_from(value)
    told = json.loads(value[_LENGTH.size :][:length])
    fields = {key: _tuples(each) for key, each in told["hook"].items()}
    spared = ({key: _tuples(each) for key, each in rule.items()} for rule in fields.pop("spared"))
    return Hook(**fields, spared=tuple(Rule(**rule) for rule in spared)), told["code"]


def _tuples(told: Any) -> Any:
    return tuple(map(_tuples, told)) if isinstance(told, list) else told


def _encode(hook: Hook) -> bytes:
    marks = dict(hook.marks)
    slots = [mark for family in FAMILIES for mark in marks.get(family, (0,) * SLOTS)]
    text = json.dumps({"hook": asdict(hook), "code": _code(hook)}, separators=(",", ":")).encode()
    return _SLOTS.pack(*slots) + _TURNS + _LENGTH.pack(len(text)) + text


@functools.lru_cache(4)
def _code(hook: Hook) -> str:
    """A digest of the instructions but for what differs from one load to the next."""
    connecting = (programs.connect(hook, family, 0, 0, 0) for family in FAMILIES)
    return hashlib.sha256(b"".join((*connecting, programs.sock_create(0, 0)))).hexdigest()[:32]


# --- laying -------------------------------------------------------------------------------


def _update(stack: ExitStack, old: list[Attached], hook: Hook) -> bool:
    """Whether those that stand could be told the new marks."""
    if sorted(each.place for each in old) != _places(hook):
        return False
    if _held(stack, old)[1] != _code(hook):
        return False
    state, size = _map(stack, old, _STATE)
    value = _encode(hook)
    if len(value) > size:
        return False
    if hook.cgroups:
        _fill(_map(stack, old, _CGROUPS)[0], hook)
    syscall.update(state, _FIRST, value.ljust(size, b"\0"))
    return True


def _fill(there: int, hook: Hook) -> None:
    wanted = _marks_by_id(hook)
    for key, marks in wanted.items():
        syscall.update(there, key, marks)
    for key in syscall.keys(there, _ID.size):
        if key not in wanted:
            syscall.delete(there, key)


def _load(stack: ExitStack, hook: Hook, cookie: int) -> list[tuple[int, int]]:
    """(place, program), with maps that are filled."""
    value = _encode(hook)
    room = max(_ROOM, 2 * len(value))
    state = syscall.create_map(bpf.BPF_MAP_TYPE_ARRAY, len(_FIRST), room, 1, _STATE)
    stack.callback(os.close, state)
    syscall.update(state, _FIRST, value.ljust(room, b"\0"))
    there = -1
    if hook.cgroups:
        there = syscall.create_map(
            bpf.BPF_MAP_TYPE_HASH, _ID.size, _MARKS.size, _MOST_CGROUPS, _CGROUPS
        )
        stack.callback(os.close, there)
        _fill(there, hook)
    loaded = []
    for place in _places(hook):
        if place == bpf.BPF_CGROUP_INET_SOCK_CREATE:
            code = programs.sock_create(cookie, there)
        else:
            family: Family = 4 if place == _CONNECT[4] else 6
            code = programs.connect(hook, family, cookie, state, there)
        program = syscall.load(code, place, _name(cookie))
        stack.callback(os.close, program)
        loaded.append((place, program))
    return loaded


def _attach(stack: ExitStack, hook: Hook) -> None:
    """All or none."""
    root = cgroups.root()
    done: list[tuple[int, int]] = []
    try:
        for place, program in _load(stack, hook, _cookie()):
            syscall.attach(root, program, place)
            done.append((place, program))
    except BaseException:
        for place, program in done:
            syscall.detach(root, program, place)
        raise


def _detach(found: list[Attached]) -> None:
    root = cgroups.root()
    for each in found:
        try:
            fd = syscall.program_by_id(each.program)
        except FileNotFoundError:
            continue
        try:
            with suppress(FileNotFoundError):
                syscall.detach(root, fd, each.place)
        finally:
            os.close(fd)
