"""bpf(2): maps and programs of cgroups, by the system call alone.

Rules: what is refused is an OSError with the kernel's errno; a verifier's last words are its text.
A file descriptor that is returned is the caller's to close.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ifdefault.kernel.uapi import bpf
from ifdefault.libc import checked, libc

_MOST = 64  # programs at one place; that is the kernel's own limit
_LOG_BYTES = 1 << 18
_ATTRIBUTES_BYTES = 152  # union bpf_attr
_PROG_INFO, _MAP_INFO = struct.Struct("=52xIQ16s"), struct.Struct("=8xII8x16s")
_SYSCALLS = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_SYSCALL = _SYSCALLS.get(platform.machine(), 280)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel tells of a program."""

    name: str
    maps: tuple[int, ...]  # their ids


def call(command: int, attributes: bytes) -> int:
    return _call(command, ctypes.create_string_buffer(attributes, _ATTRIBUTES_BYTES))


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    return checked(libc.syscall(_SYSCALL, command, attributes, len(attributes)))


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


# --- maps ---------------------------------------------------------------------------------


def create_map(kind: int, key_bytes: int, value_bytes: int, entries: int, name: str) -> int:
    shape = struct.pack(
        "=IIIIIII16s", kind, key_bytes, value_bytes, entries, 0, 0, 0, name.encode()
    )
    return call(bpf.BPF_MAP_CREATE, shape)


def _element(command: int, fd: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
    keeps = ctypes.create_string_buffer(key, len(key))
    where = _address(value) if value is not None else 0
    call(command, struct.pack("=IxxxxQQQ", fd, _address(keeps), where, 0))


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes:
    value = ctypes.create_string_buffer(value_bytes)
    _element(bpf.BPF_MAP_LOOKUP_ELEM, fd, key, value)
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    _element(bpf.BPF_MAP_UPDATE_ELEM, fd, key, ctypes.create_string_buffer(value, len(value)))


def delete(fd: int, key: bytes) -> None:
    _element(bpf.BPF_MAP_DELETE_ELEM, fd, key, None)


def keys(fd: int, key_bytes: int) -> list[bytes]:
    """All keys of a hash map that nobody else changes meanwhile."""
    found: list[bytes] = []
    following = ctypes.create_string_buffer(key_bytes)
    while True:
        before = ctypes.create_string_buffer(found[-1], key_bytes) if found else None
        where = _address(before) if before is not None else 0
        try:
            call(
                bpf.BPF_MAP_GET_NEXT_KEY,
                struct.pack("=IxxxxQQQ", fd, where, _address(following), 0),
            )
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        found.append(following.raw)


def map_by_id(number: int) -> int:
    return call(bpf.BPF_MAP_GET_FD_BY_ID, struct.pack("=I", number))


def map_info(fd: int) -> tuple[str, int, int]:
    """Its name, and how many bytes its keys and values have."""
    key_bytes, value_bytes, name = _MAP_INFO.unpack(_info(fd, _MAP_INFO.size))
    return name.rstrip(b"\0").decode(), key_bytes, value_bytes


def _info(fd: int, size: int, given: bytes = b"") -> bytes:
    info = ctypes.create_string_buffer(given, size)
    call(bpf.BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, _address(info)))
    return info.raw


# --- programs -----------------------------------------------------------------------------


def load(instructions: bytes, place: int, name: str) -> int:
    """Load a program that is to be attached at `place`."""
    kind = (
        bpf.BPF_PROG_TYPE_CGROUP_SOCK
        if place == bpf.BPF_CGROUP_INET_SOCK_CREATE
        else bpf.BPF_PROG_TYPE_CGROUP_SOCK_ADDR
    )
    try:
        return _load(instructions, kind, place, name, None)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:  # once more, to hear why
            return _load(instructions, kind, place, name, log)
        except OSError:
            said = log.value.decode(errors="replace").strip().splitlines()
            words = [line for line in said if not line.startswith("processed ")][-1:]
            raise OSError(error.errno, f"{error.strerror}: {' '.join(words)}") from None


def _load(
    instructions: bytes, kind: int, place: int, name: str, log: ctypes.Array[ctypes.c_char] | None
) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")  # bpf_setsockopt is for those alone
    form = "=IIQQIIQII16sII"
    told = (1, len(log), _address(log)) if log is not None else (0, 0, 0)
    head = (kind, len(instructions) // 8, _address(code), _address(licence))
    return call(bpf.BPF_PROG_LOAD, struct.pack(form, *head, *told, 0, 0, name.encode(), 0, place))


def attach(cgroup: int, program: int, place: int) -> None:
    """Beside those of others; it stays until it is detached, or its cgroup goes."""
    call(bpf.BPF_PROG_ATTACH, struct.pack("=IIII", cgroup, program, place, bpf.BPF_F_ALLOW_MULTI))


def detach(cgroup: int, program: int, place: int) -> None:
    call(bpf.BPF_PROG_DETACH, struct.pack("=IIII", cgroup, program, place, 0))


def attached(cgroup: int, place: int) -> Iterator[int]:
    """The ids of the programs that are attached to a cgroup itself."""
    ids = ctypes.create_string_buffer(4 * _MOST)
    query = struct.pack("=IIIIQI", cgroup, place, 0, 0, _address(ids), _MOST)
    buffer = ctypes.create_string_buffer(query, _ATTRIBUTES_BYTES)
    _call(bpf.BPF_PROG_QUERY, buffer)
    (count,) = struct.unpack_from("=I", buffer.raw, 24)
    yield from struct.unpack_from(f"={count}I", ids.raw)


def program_by_id(number: int) -> int:
    return call(bpf.BPF_PROG_GET_FD_BY_ID, struct.pack("=I", number))


def program_info(fd: int) -> ProgramInfo:
    ids = ctypes.create_string_buffer(4 * _MOST)
    told = _info(fd, _PROG_INFO.size, struct.pack("=52xIQ", _MOST, _address(ids)))
    count, _, name = _PROG_INFO.unpack(told)
    return ProgramInfo(
        name.rstrip(b"\0").decode(), struct.unpack_from(f"={min(count, _MOST)}I", ids.raw)
    )
