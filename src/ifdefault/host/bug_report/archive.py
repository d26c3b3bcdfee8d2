"""A bug report as a file: a gzipped tar archive that is there completely, or not at all.

Rules: the same files in the same order give the same bytes; only its owner may read it.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ifdefault.model.errors import HostError, Problem, reason


def write(path: Path, files: Mapping[str, str], at: float) -> int:
    """Write a new archive, all of whose files are of the time `at`; return its size. HostError if
    it exists or can't be written; then nothing is left."""
    stem = path.name.removesuffix(".tar.gz")
    part = path.with_name(f".{path.name}.part")
    require_new(path)
    try:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(file, "wb") as raw:
                with gzip.GzipFile("", "wb", 9, raw, mtime=0) as zipped:
                    _write_tar(zipped, stem, files, at)
                raw.flush()
                os.fsync(raw.fileno())
                size = raw.tell()
            os.link(part, path)  # unlike rename, it replaces nothing
        finally:
            with suppress(OSError):
                part.unlink()
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        what = f"{path} can't be written: {reason(error)}"
        remedy = "name a file on a disk with room with -o"
        raise HostError(Problem("report", what, remedy)) from None
    return size


def require_new(path: Path) -> None:
    """HostError if there is something of this name, before anything is collected for it."""
    if path.exists() or path.is_symlink():
        raise _exists(path)


def _exists(path: Path) -> HostError:
    what = f"{path} already exists"
    return HostError(Problem("report", what, "give the name of a new file with -o"))


def _write_tar(to: gzip.GzipFile, stem: str, files: Mapping[str, str], at: float) -> None:
    with tarfile.open(fileobj=to, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in files.items():
            data = text.encode("utf-8", "backslashreplace")
            info = tarfile.TarInfo(f"{stem}/{name}")
            info.size, info.mtime, info.mode = len(data), int(at), 0o600
            tar.addfile(info, io.BytesIO(data))
