"""One file of the state directory: its format, and how it is read, written and set aside.

    {"file": "state.json", "version": 1, "by": "0.1.0", "sha256": "…",
    "content": …
    }

Rules: a file is used as a whole or not at all: whatever is in it, `read` returns a valid value or
raises Unusable. A file is replaced by writing another one, fsync, rename, and fsync of the folder.
No file is overwritten before it has been understood: a damaged one is set aside as
NAME.damaged-TIME, and one in the format of another version as NAME.vN, from where a program of that
version takes it back.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

from ifdefault import __version__
from ifdefault.ipc import codec
from ifdefault.model.errors import reason

MOST_DAMAGED = 3  # of one name are kept
_LONGEST, _VERSIONS = 64 * 1024 * 1024, 1_000_000
_CONTENT, _END = b',\n"content": ', b"\n}\n"
_DAMAGED = re.compile(r"(?P<name>.+\.json)\.damaged-\d{8}T\d{6}Z(-\d)?")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StateFile(Generic[T]):
    """`kind`: the type of the content, for `ipc.codec`; None: any JSON. `lost`: what follows if the
    content is lost. `copied`: whether a copy is kept, since that would be worse than a nuisance.
    `urgent`: whether what is done next depends on it being on disk. `check` raises ValueError for a
    value of the right type that is invalid."""

    name: str
    kind: Any
    lost: str = ""
    version: int = 1
    copied: bool = False
    urgent: bool = True
    mode: int = 0o644
    check: Callable[[T], object] | None = None

    @property
    def copy(self) -> str:
        """The name of the copy, and of what a program of another version has set aside."""
        return f"{self.name}.v{self.version}"


class Unusable(Exception):
    """Why the content of a file can't be used. `version` is that of its format, 0 if unknown."""

    def __init__(self, what: str, version: int = 0) -> None:
        self.what, self.version = what, version
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class _Head:
    file: str
    version: int
    by: str
    sha256: str


def read(path: Path, file: StateFile[T]) -> T:
    """Raises Unusable, FileNotFoundError or PermissionError, nothing else."""
    content = _verified(_read_bytes(path), file)
    try:
        value = codec.read(content)
        decoded: T = value if file.kind is None else codec.decoder(file.kind)(value)
        if file.check is not None:
            file.check(decoded)
    except ValueError as error:
        raise Unusable(f"is damaged: {error}") from None
    return decoded


def verify(path: Path, name: str) -> str:
    """What is wrong with a file, "" if nothing is; without knowing what its content should be."""
    try:
        _verified(_read_bytes(path), StateFile(name, None, version=0))
    except Unusable as error:
        return "" if error.version else error.what
    except OSError:  # it is gone, or isn't ours to read
        pass
    return ""


def _read_bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unusable("is damaged: not a regular file")
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise Unusable(f"can't be read: {reason(error)}") from error
    if len(data) > _LONGEST:
        raise Unusable("is damaged: too long")
    return data


def _verified(data: bytes, file: StateFile[Any]) -> bytes:
    """The content, if the file is complete, unchanged, and in the format of this version."""
    start, found, rest = data.partition(_CONTENT)
    try:
        head = codec.from_json(_Head, codec.read(start + b"}"))
    except codec.DecodeError:
        raise Unusable("is damaged: not a state file of ifdefault") from None
    content = rest[: -len(_END)]
    if not found or not rest.endswith(_END):
        raise Unusable("is damaged: it ends too early")
    if sha256(content).hexdigest() != head.sha256:
        raise Unusable("is damaged: its checksum differs")
    if head.file != file.name:
        raise Unusable(f"is damaged: it is a copy of {head.file[:60]!r}")
    if not 0 < head.version < _VERSIONS:
        raise Unusable("is damaged: its format has no valid number")
    if head.version != file.version:
        age = "a newer" if head.version > file.version else "an older"
        by, format_ = ascii(head.by[:30])[1:-1], f"format {head.version}"
        ours = f"this is {__version__}, format {file.version}"
        raise Unusable(f"is of {age} ifdefault ({by}, {format_}; {ours})", head.version)
    return content


def replace(path: Path, file: StateFile[T], value: T) -> None:
    """Write a file, completely or not at all. Raises OSError."""
    content_json = value if file.kind is None else codec.encoder(file.kind)(value)
    content = json.dumps(content_json, indent=1, allow_nan=False).encode()
    head = _Head(file.name, file.version, __version__, sha256(content).hexdigest())
    data = codec.write(codec.to_json(head))[:-1] + _CONTENT + content + _END
    fresh = path.with_name(f".{path.name}.new")
    try:
        with suppress(FileNotFoundError):
            fresh.unlink()  # of a process that was killed, perhaps with another mode
        with open(fresh, "xb", opener=lambda name, flags: os.open(name, flags, file.mode)) as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()  # what it takes up may be the last that there is
        raise
    sync(path.parent)


def sync(directory: Path) -> None:
    """Make renames in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that can't, and needn't
            raise
    finally:
        os.close(fd)


def set_aside(path: Path, name: str, why: Unusable) -> Path:
    """Rename a file that can't be used, or its copy, by the file's name; return the new path.
    Raises OSError."""
    if why.version:
        target = path.with_name(f"{name}.v{why.version}")
    else:
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = path.with_name(f"{name}.damaged-{when}")
        if target.exists():
            target = path.with_name(f"{target.name}-2")
    path.replace(target)
    earlier = [p for p, former in damaged(path.parent) if former == name]
    for path in earlier[:-MOST_DAMAGED]:
        with suppress(OSError):
            path.unlink()
    return target


def damaged(directory: Path) -> Iterator[tuple[Path, str]]:
    """The damaged files that were set aside, oldest first, with their former names."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        if match := _DAMAGED.fullmatch(name):
            yield directory / name, match["name"]
