"""Attach the programs on connect() to the root of the cgroup hierarchy.

Rules: the programs outlive this process, and are identified by their name, which contains the
cookie of their network namespace; those of other namespaces are never touched. The Hook that they
implement is stored in one of their maps. New programs are attached before old ones are detached: a
socket marked by one is left alone by the other. If only marks change, the maps are updated instead.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

from ifdefault.kernel.ebpf import cgroups, programs, syscall
from ifdefault.kernel.netns import cookie
from ifdefault.kernel.uapi import bpf
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import HostError
from ifdefault.model.kernel import SLOTS, Hook, Rule

_CONNECT: dict[Family, int] = {
    4: bpf.BPF_CGROUP_INET4_CONNECT,
    6: bpf.BPF_CGROUP_INET6_CONNECT,
}
_ATTACH_TYPES = (*_CONNECT.values(), bpf.BPF_CGROUP_INET_SOCK_CREATE)
_STATE, _CGROUPS = "ifd_state", "ifd_cgroups"
_STATE_BYTES_MIN = 16384  # of the map that stores the hook as text
_CGROUPS_MAX = 1024
# what a state that we didn't write, or another version did, may raise
_NOT_OURS = (ValueError, LookupError, TypeError, AttributeError, struct.error, RecursionError)
_FIRST = struct.pack("=I", 0)  # key of a map with one value
_SLOTS = struct.Struct(f"={SLOTS}I4x")  # of a family, and the counter of its program
_TEXT_AT = _SLOTS.size * len(FAMILIES)
_LENGTH, _ID, _MARKS = struct.Struct("=I"), struct.Struct("=Q"), struct.Struct("=II")
# stands for programs that are incomplete, or that this version would create differently
_UNKNOWN = Hook(mask=0)


@dataclass(frozen=True, slots=True)
class Attached:
    """One of our programs."""

    attach_type: int
    program: int  # its id
    maps: tuple[int, ...]


def read() -> Hook | None:
    """The hook of this network namespace: None if there is none or it can't be read, and a value
    equal to no other if it is damaged."""
    try:
        attached = find()
        return _read(attached) if attached else None
    except (HostError, OSError):
        return None  # no cgroup v2, no BPF, or no permission


def put(hook: Hook | None) -> None:
    """Attach the programs for a hook, or replace those that are attached; None removes them. Raises
    OSError if the kernel refuses."""
    old = find()
    with ExitStack() as stack:
        if hook is None or not _update(stack, old, hook):
            if hook is not None:
                _attach(stack, hook)
            _detach(old)


def remove() -> None:
    _detach(find())


def find() -> list[Attached]:
    """The attached programs of this network namespace."""
    return list(_own())


def unavailable() -> str:
    """Why this process can't attach the programs; "" if it can."""
    try:
        _try()
    except HostError as error:
        return error.problems[0].what
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return "needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN: see the drop-in balance.conf"
        if error.errno in (errno.ENOSYS, errno.EINVAL):
            return f"needs Linux 5.8 with CONFIG_CGROUP_BPF ({error})"
        return f"refused by the kernel: {error.strerror or error}"
    return ""


@functools.cache  # of success; an exception isn't cached
def _try() -> None:
    """Everything but attaching."""
    list(syscall.attached(cgroups.root(), bpf.BPF_CGROUP_INET4_CONNECT))
    with suppress(FileNotFoundError):
        os.close(syscall.program_by_id(0))
    with ExitStack() as stack:
        blank = tuple((family, (0,) * SLOTS) for family in FAMILIES)
        _load(stack, Hook(mask=0, marks=blank, cgroups=(("/", 0, 0),)), 0)


# --- our programs -------------------------------------------------------------------------


def name() -> str:
    """What the programs of this network namespace are called. OSError before Linux 5.14."""
    return _name(cookie())


def _name(cookie: int) -> str:
    return f"ifd{cookie & 0xFFFFFFFFFFFF:012x}"  # up to 15 characters (BPF_OBJ_NAME_LEN)


def _own() -> Iterator[Attached]:
    root, own = cgroups.root(), name()
    for attach_type in _ATTACH_TYPES:
        for number in syscall.attached(root, attach_type):
            try:
                fd = syscall.program_by_id(number)
            except FileNotFoundError:
                continue  # detached meanwhile
            try:
                info = syscall.program_info(fd)
            finally:
                os.close(fd)
            if info.name == own:
                yield Attached(attach_type, number, info.maps)


def _map(stack: ExitStack, attached: list[Attached], wanted: str) -> tuple[int, int]:
    """A descriptor of the map of this name, and the size of its values in bytes."""
    for number in dict.fromkeys(number for program in attached for number in program.maps):
        fd = syscall.map_by_id(number)
        stack.callback(os.close, fd)
        name, _, value_bytes = syscall.map_info(fd)
        if name == wanted:
            return fd, value_bytes
    raise FileNotFoundError(errno.ENOENT, "no such map")


# --- their state --------------------------------------------------------------------------


def _read(attached: list[Attached]) -> Hook:
    with ExitStack() as stack:
        hook = _stored(stack, attached)
        if _types_of(attached) != _attach_types(hook):
            return _UNKNOWN
        if hook.cgroups:
            cgroup_map, _ = _map(stack, attached, _CGROUPS)
            marks = {
                key: syscall.lookup(cgroup_map, key, _MARKS.size)
                for key in syscall.keys(cgroup_map, _ID.size)
            }
            if not _marks_by_id(hook).items() <= marks.items():  # removed cgroups are harmless
                return _UNKNOWN  # a cgroup was created
        return hook


def _stored(stack: ExitStack, attached: list[Attached]) -> Hook:
    """The hook that the programs implement, if their instructions are those that this version has
    for it."""
    try:
        state, size = _map(stack, attached, _STATE)
    except FileNotFoundError:
        return _UNKNOWN
    return decode_state(syscall.lookup(state, _FIRST, size)[_TEXT_AT:])


def decode_state(value: bytes) -> Hook:
    try:
        hook, digest = _decode(value)
        return hook if digest == _code_digest(hook) else _UNKNOWN
    except _NOT_OURS:
        return _UNKNOWN


def _types_of(attached: list[Attached]) -> list[int]:
    return sorted(program.attach_type for program in attached)


def _attach_types(hook: Hook) -> list[int]:
    return sorted(_ATTACH_TYPES if hook.cgroups else _CONNECT.values())


def _marks_by_id(hook: Hook) -> dict[bytes, bytes]:
    numbers = ((cgroups.number(path), marks) for path, *marks in hook.cgroups)
    return {_ID.pack(number): _MARKS.pack(*marks) for number, marks in numbers if number}


@functools.lru_cache(2)
def _decode(value: bytes) -> tuple[Hook, str]:
    (length,) = _LENGTH.unpack_from(value)
    state = json.loads(value[_LENGTH.size :][:length])
    fields = {key: _tuples(field) for key, field in state["hook"].items()}
    spared = ({key: _tuples(field) for key, field in rule.items()} for rule in fields.pop("spared"))
    return Hook(**fields, spared=tuple(Rule(**rule) for rule in spared)), state["code"]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _encode(hook: Hook) -> bytes:
    marks = dict(hook.marks)
    slots = b"".join(_SLOTS.pack(*marks.get(family, (0,) * SLOTS)) for family in FAMILIES)
    text = json.dumps(
        {"hook": asdict(hook), "code": _code_digest(hook)}, separators=(",", ":")
    ).encode()
    return slots + _LENGTH.pack(len(text)) + text


@functools.lru_cache(4)
def _code_digest(hook: Hook) -> str:
    """A digest of the instructions without cookie and file descriptors."""
    connect = (programs.connect(hook, family, 0, 0, 0) for family in FAMILIES)
    return hashlib.sha256(b"".join((*connect, programs.sock_create(0, 0)))).hexdigest()[:32]


# --- attach, detach -----------------------------------------------------------------------


def _update(stack: ExitStack, old: list[Attached], hook: Hook) -> bool:
    """Update the maps of the attached programs; False if new programs are needed."""
    if _types_of(old) != _attach_types(hook):
        return False
    before = _stored(stack, old)
    if before == _UNKNOWN or _code_digest(before) != _code_digest(hook):
        return False
    state, size = _map(stack, old, _STATE)
    value = _encode(hook)
    if len(value) > size:
        return False
    if hook.cgroups:
        _fill(_map(stack, old, _CGROUPS)[0], hook)
    syscall.update(state, _FIRST, value.ljust(size, b"\0"))
    return True


def _fill(cgroup_map: int, hook: Hook) -> None:
    wanted = _marks_by_id(hook)
    for key, marks in wanted.items():
        syscall.update(cgroup_map, key, marks)
    for key in syscall.keys(cgroup_map, _ID.size):
        if key not in wanted:
            syscall.delete(cgroup_map, key)


def _load(stack: ExitStack, hook: Hook, cookie: int) -> list[tuple[int, int]]:
    """Load the programs and their maps; return (attach type, program descriptor) of each."""
    value = _encode(hook)
    size = max(_STATE_BYTES_MIN, 2 * len(value))
    state = syscall.create_map(bpf.BPF_MAP_TYPE_ARRAY, len(_FIRST), size, 1, _STATE)
    stack.callback(os.close, state)
    syscall.update(state, _FIRST, value.ljust(size, b"\0"))
    cgroup_map = -1
    if hook.cgroups:
        cgroup_map = syscall.create_map(
            bpf.BPF_MAP_TYPE_HASH, _ID.size, _MARKS.size, _CGROUPS_MAX, _CGROUPS
        )
        stack.callback(os.close, cgroup_map)
        _fill(cgroup_map, hook)
    loaded = []
    for attach_type in _attach_types(hook):
        if attach_type == bpf.BPF_CGROUP_INET_SOCK_CREATE:
            code = programs.sock_create(cookie, cgroup_map)
        else:
            family: Family = 4 if attach_type == _CONNECT[4] else 6
            code = programs.connect(hook, family, cookie, state, cgroup_map)
        program = syscall.load(code, attach_type, _name(cookie))
        stack.callback(os.close, program)
        loaded.append((attach_type, program))
    return loaded


def _attach(stack: ExitStack, hook: Hook) -> None:
    """Attach all programs; if one fails, none stays attached."""
    root = cgroups.root()
    done: list[tuple[int, int]] = []
    try:
        for attach_type, program in _load(stack, hook, cookie()):
            syscall.attach(root, program, attach_type)
            done.append((attach_type, program))
    except BaseException:
        for attach_type, program in done:
            syscall.detach(root, program, attach_type)
        raise


def _detach(attached: list[Attached]) -> None:
    root = cgroups.root()
    for program in attached:
        try:
            fd = syscall.program_by_id(program.program)
        except FileNotFoundError:
            continue
        try:
            with suppress(FileNotFoundError):
                syscall.detach(root, fd, program.attach_type)
        finally:
            os.close(fd)
