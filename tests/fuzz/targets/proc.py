"""Names in /proc: whatever a process, a control group or a mount point is called, the rest is read
as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest.mock import patch

from ifdefault.ipc import privileges
from ifdefault.kernel.ebpf import cgroups

KIND = "bytes"
_COMM = 15  # TASK_COMM_LEN without the NUL
# after the name, as in proc_pid_status(5)
_STATUS = """
Umask:	0022
Uid:	999	999	999	999
Gid:	999	999	999	999
Groups:
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	0000000000000000
CapAmb:	0000000000000000
NoNewPrivs:	1
"""


def seeds() -> list[bytes]:
    return [b"python3", b"a b\\c\td", b"x\x1cUid:\t0", b"\xff\xc2\x85", b"user.slice\r", b"-\x0b:"]


def one(data: bytes) -> None:
    name = data.translate(None, b"\0/\n") or b"x"
    text = name[:_COMM].replace(b"\\", b"\\\\").decode("utf-8", "replace")
    assert privileges.left_over(f"Name:\t{text}{_STATUS}", 999) == ()
    _cgroup(b"/a.slice/" + name)
    _mounted(b"/" + name)


def _cgroup(path: bytes) -> None:
    text = b"1:name=systemd:%b\n0::%b\n" % (path, path)
    with patch.object(Path, "read_bytes", lambda _: text):
        found = cgroups.of_process(1)
    assert os.fsencode(found) == path.removesuffix(b" (deleted)")


def _mounted(path: bytes) -> None:
    """The kernel escapes blanks, backslashes and "#" (fs/proc_namespace.c, mangle)."""
    escaped = re.sub(rb"[ \t\n\\#]", lambda match: b"\\%03o" % match[0][0], path)
    line = b"29 23 0:26 / %b rw,nosuid shared:4 - cgroup2 cgroup2 rw\n" % escaped
    with (
        patch.object(Path, "read_bytes", lambda _: b"23 1 0:2 / / rw - ext4 /dev/a rw\n" + line),
        patch.object(Path, "exists", lambda _: True),
    ):
        assert os.fsencode(cgroups._mounted()) == path
