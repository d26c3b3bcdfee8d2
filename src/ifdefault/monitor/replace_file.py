"""Writes a small file anew, so that a reader sees the old one or the new one as a whole.

Rules: every user may read it. It isn't synced: what it says is soon said again. What others put in
the place of the new file is removed, and never opened.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Raises OSError; then the old file is still there."""
    fresh = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, flags, 0o644), "wb") as file:
        try:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask
            file.write(content)
            file.flush()
            fresh.rename(path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()  # what it takes up may be the last that there is
            raise
