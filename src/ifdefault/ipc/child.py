"""The command and the environment of a child process of ours.

Rules: a child inherits of the environment only what is named here.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The environment variables that are passed on: for Python, the CA certificates, the log.
_PASSED = ("LANG", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "JOURNAL_STREAM")
_PASSED_TLS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF")
_MALLOC = {"MALLOC_ARENA_MAX": "2"}  # resolver threads need no memory arenas of their own


def python(module: str, *arguments: str | int) -> list[str]:
    """The command that runs a module of ours; -P: imports from Python's own directories only."""
    return [sys.executable, "-P", "-s", "-m", module, *map(str, arguments)]


def find_program(name: str) -> str | None:
    """A program of our own Python, or of the system."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{PATH}")


def environment() -> dict[str, str]:
    """The environment of a child: what its Python needs, and nothing of the user's."""
    passed = {name: os.environ[name] for name in _PASSED + _PASSED_TLS if name in os.environ}
    return {"PATH": PATH} | passed | _MALLOC
