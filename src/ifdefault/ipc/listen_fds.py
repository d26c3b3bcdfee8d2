"""The socket that systemd passes to a program that it starts for it (sd_listen_fds(3))."""

from __future__ import annotations

import os
import sys

_FIRST = 3


def passed_socket(program: str) -> int:
    """Its descriptor; without it, the program says what it is for, and exits."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        print(f"{program}: is started by systemd: {program}.socket", file=sys.stderr)
        raise SystemExit(2)
    return _FIRST
