"""The config file, and the last config that worked: used if at a start the file is invalid, or
holds what `apply --confirm` tried and nobody confirmed.

Rules: a config has worked once it is in the kernel and needs no confirmation any more. Only a start
and what runs by itself may fall back, since nobody is there to be told; whoever changes a config is
told its errors. A file that doesn't exist is no mistake in it: then nothing is to be started.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ifdefault.config import parse_on_host, read_text
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.model.config import Config
from ifdefault.model.errors import ConfigError, IfdefaultError, Problem


@dataclass(frozen=True, slots=True)
class _Worked:
    """`at`: since when, wall-clock time, for display only."""

    at: float
    file: str
    text: str


LAST_CONFIG: StateFile[_Worked] = StateFile(
    "config.json",
    _Worked,
    "the config is saved again once it has worked",
    copied=True,
    mode=0o600,  # a config may contain what others mustn't read, as in URLs
)
UNCONFIRMED: StateFile[str] = StateFile(
    "unconfirmed.json", str, "the config file counts as confirmed"
)  # the digest of its text


class ConfigFile:
    """`errors` are those of the file if the last config that worked was read instead."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path, self._store = path, store
        self.errors: tuple[Problem, ...] = ()
        self._read: tuple[Config, str] | None = None

    def read(self) -> Config:
        """Raises ConfigError."""
        text = read_text(self.path)
        config = parse_on_host(text, str(self.path))
        self._read = config, text
        return config

    def read_or_last(self) -> Config:
        """The config in the file, or the last one that worked. ConfigError if there is none."""
        try:
            config = self.read()
        except ConfigError as error:
            if (last := self._last()) is None:
                raise
            what = f"invalid; the last config that worked, of {last[1]}, is used instead"
            remedy = "correct the file, and run ifdefault apply"
            self.errors = (*error.problems, Problem(str(self.path), what, remedy))
            return last[0]
        if self._store.read(UNCONFIRMED) != self.digest or (last := self._last()) is None:
            return config
        what = f"not confirmed; the last config that worked, of {last[1]}, is used instead"
        self.errors = (Problem(str(self.path), what, "to use the file, run ifdefault apply"),)
        self._read = None
        return last[0]

    def _last(self) -> tuple[Config, str] | None:
        """The last config that worked, and since when it does."""
        try:
            last = self._store.read(LAST_CONFIG) if os.path.lexists(self.path) else None
            if last is None:
                return None
            config = parse_on_host(last.text, str(self.path))
        except IfdefaultError:  # not readable; of another version; its users are gone
            return None
        return config, time.strftime("%Y-%m-%d %H:%M", time.localtime(max(0.0, min(last.at, 1e11))))

    @property
    def digest(self) -> str:
        """Of the text that was read last."""
        return sha256(self._read[1].encode()).hexdigest() if self._read else ""

    def worked(self, config: Config | None = None) -> None:
        """Keep the text of a config that has worked, if it was read from the file; by default the
        one that was read last."""
        if self._read is None or (config is not None and config is not self._read[0]):
            return
        text, self._read, self.errors = self._read[1], None, ()
        file, last = str(self.path), self._store.read(LAST_CONFIG)
        if last is None or (last.file, last.text) != (file, text):
            self._store.write(LAST_CONFIG, _Worked(time.time(), file, text))
        self._store.remove(UNCONFIRMED.name)

    def tried(self) -> None:
        """The config that was read last is in the kernel, and waits for confirmation."""
        if self._store.read(UNCONFIRMED) != self.digest:
            self._store.write(UNCONFIRMED, self.digest)


def confirmed(path: Path, store: Store, digest: str) -> None:
    """Keep the config that was confirmed, unless the file was changed meanwhile."""
    store.remove(UNCONFIRMED.name)
    file = ConfigFile(path, store)
    try:
        file.read()
    except ConfigError:
        return
    if file.digest == digest:
        file.worked()
