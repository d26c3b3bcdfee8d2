"""Which files this process may reach from now on, for good (landlock(7)).

Rules: only reading can be left. Rights that a kernel doesn't know are not restricted. A descriptor
that is open already keeps its rights.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress

from ifdefault.libc import checked, libc

# linux/landlock.h; the calls have these numbers on all architectures
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many each ABI knows; 16 from the fifth on
_SCOPES = 0b11  # abstract UNIX sockets and signals: not to processes outside
_SCOPED_SINCE = 6


def version() -> int:
    """The kernel's ABI. OSError if it has none, or if it is disabled or forbidden."""
    return checked(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))


def restrict(readable: Iterable[str]) -> None:
    """Forbid everything with files but reading below these directories, and connections and signals
    to others. It needs no_new_privs. OSError as `version`."""
    abi = version()
    attributes = struct.pack("=Q", (1 << _FILE_RIGHTS.get(abi, 16)) - 1)
    if abi >= _SCOPED_SINCE:
        attributes += struct.pack("=QQ", 0, _SCOPES)
    size = ctypes.c_size_t(len(attributes))
    ruleset = checked(libc.syscall(_CREATE_RULESET, attributes, size, 0))
    try:
        for path in readable:
            with suppress(OSError):  # it isn't there, or this user may not see it
                _add(ruleset, path)
        checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _add(ruleset: int, path: str) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_dir = stat.S_ISDIR(os.fstat(fd).st_mode)
        rights = _READ_FILE | (_READ_DIR if is_dir else 0)
        rule = struct.pack("=Qi", rights, fd)
        checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(fd)
