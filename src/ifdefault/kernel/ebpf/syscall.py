"""Maps and cgroup programs by the bpf(2) system call.

Rules: errors are OSError with the kernel's errno; if the verifier rejects a program, its last
message is the text. The caller must close the file descriptors that are returned.
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
from ifdefault.model.text import from_bytes

_PROGRAMS_MAX = 64  # per cgroup and attach type: the kernel's limit
_LOG_BYTES = 1 << 18
_ATTRIBUTES_BYTES = 152  # union bpf_attr
_PROG_INFO, _MAP_INFO = struct.Struct("=52xIQ16s"), struct.Struct("=8xII8x16s")
_SYSCALLS = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_SYSCALL = _SYSCALLS.get(platform.machine(), 280)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """The kernel's information about a program (struct bpf_prog_info)."""

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
    key_buffer = ctypes.create_string_buffer(key, len(key))
    pointer = _address(value) if value is not None else 0
    call(command, struct.pack("=IxxxxQQQ", fd, _address(key_buffer), pointer, 0))


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes:
    value = ctypes.create_string_buffer(value_bytes)
    _element(bpf.BPF_MAP_LOOKUP_ELEM, fd, key, value)
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    _element(bpf.BPF_MAP_UPDATE_ELEM, fd, key, ctypes.create_string_buffer(value, len(value)))


def delete(fd: int, key: bytes) -> None:
    _element(bpf.BPF_MAP_DELETE_ELEM, fd, key, None)


def keys(fd: int, key_bytes: int) -> list[bytes]:
    """All keys of a hash map, which must not change meanwhile."""
    found: list[bytes] = []
    following = ctypes.create_string_buffer(key_bytes)
    while True:
        before = ctypes.create_string_buffer(found[-1], key_bytes) if found else None
        pointer = _address(before) if before is not None else 0
        try:
            call(
                bpf.BPF_MAP_GET_NEXT_KEY,
                struct.pack("=IxxxxQQQ", fd, pointer, _address(following), 0),
            )
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        found.append(following.raw)


def map_by_id(number: int) -> int:
    return call(bpf.BPF_MAP_GET_FD_BY_ID, struct.pack("=I", number))


def map_info(fd: int) -> tuple[str, int, int]:
    """The name of a map, and the sizes of its keys and values in bytes."""
    key_bytes, value_bytes, name = _MAP_INFO.unpack(_info(fd, _MAP_INFO.size))
    return from_bytes(name), key_bytes, value_bytes


def _info(fd: int, size: int, given: bytes = b"") -> bytes:
    info = ctypes.create_string_buffer(given, size)
    call(bpf.BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, _address(info)))
    return info.raw


# --- programs -----------------------------------------------------------------------------


def load(instructions: bytes, attach_type: int, name: str) -> int:
    """Load a program for an attach type; return its file descriptor."""
    kind = (
        bpf.BPF_PROG_TYPE_CGROUP_SOCK
        if attach_type == bpf.BPF_CGROUP_INET_SOCK_CREATE
        else bpf.BPF_PROG_TYPE_CGROUP_SOCK_ADDR
    )
    try:
        return _load(instructions, kind, attach_type, name, None)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:  # again, with the verifier's log
            return _load(instructions, kind, attach_type, name, log)
        except OSError:
            lines = log.value.decode(errors="replace").strip().splitlines()
            last = [line for line in lines if not line.startswith("processed ")][-1:]
            raise OSError(error.errno, f"{error.strerror}: {' '.join(last)}") from None


def _load(
    instructions: bytes,
    kind: int,
    attach_type: int,
    name: str,
    log: ctypes.Array[ctypes.c_char] | None,
) -> int:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")  # bpf_setsockopt requires it
    form = "=IIQQIIQII16sII"
    logging = (1, len(log), _address(log)) if log is not None else (0, 0, 0)
    head = (kind, len(instructions) // 8, _address(code), _address(licence))
    return call(
        bpf.BPF_PROG_LOAD, struct.pack(form, *head, *logging, 0, 0, name.encode(), 0, attach_type)
    )


def attach(cgroup: int, program: int, attach_type: int) -> None:
    """Attach a program in addition to others, until it is detached or the cgroup is removed."""
    call(
        bpf.BPF_PROG_ATTACH,
        struct.pack("=IIII", cgroup, program, attach_type, bpf.BPF_F_ALLOW_MULTI),
    )


def detach(cgroup: int, program: int, attach_type: int) -> None:
    call(bpf.BPF_PROG_DETACH, struct.pack("=IIII", cgroup, program, attach_type, 0))


def attached(cgroup: int, attach_type: int) -> Iterator[int]:
    """The ids of the programs attached to a cgroup, without those of its ancestors."""
    ids = ctypes.create_string_buffer(4 * _PROGRAMS_MAX)
    query = struct.pack("=IIIIQI", cgroup, attach_type, 0, 0, _address(ids), _PROGRAMS_MAX)
    buffer = ctypes.create_string_buffer(query, _ATTRIBUTES_BYTES)
    _call(bpf.BPF_PROG_QUERY, buffer)
    (count,) = struct.unpack_from("=I", buffer.raw, 24)
    yield from struct.unpack_from(f"={count}I", ids.raw)


def program_by_id(number: int) -> int:
    return call(bpf.BPF_PROG_GET_FD_BY_ID, struct.pack("=I", number))


def program_info(fd: int) -> ProgramInfo:
    ids = ctypes.create_string_buffer(4 * _PROGRAMS_MAX)
    info = _info(fd, _PROG_INFO.size, struct.pack("=52xIQ", _PROGRAMS_MAX, _address(ids)))
    count, _, name = _PROG_INFO.unpack(info)
    return ProgramInfo(
        from_bytes(name), struct.unpack_from(f"={min(count, _PROGRAMS_MAX)}I", ids.raw)
    )
