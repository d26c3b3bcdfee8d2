"""The state files: whatever a disk, another version or an administrator made of them.

An input's first byte tells the file; the rest is its content, which gets a valid checksum, or from
128 on the file as a whole.
"""

from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from ifdefault import __version__
from ifdefault.daemon.event_log import SAVED, EventLog
from ifdefault.health import path
from ifdefault.host import state_file
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.saved_state import DISCOVERED, LIMITS, STATE, TABLES, SavedState
from ifdefault.host.state_file import StateFile, Unusable
from ifdefault.host.store import Store
from ifdefault.ipc import codec
from ifdefault.model.address import is_public
from ifdefault.model.config import HealthConfig
from ifdefault.model.host import Observation, State
from ifdefault.plan.prepare import prepare_down
from tests.unit.test_state_files import FACTS, FILES

KIND = "json"
_FILES: tuple[StateFile[Any], ...] = tuple(file for file, _ in FILES.values())
_HEALTH = HealthConfig()


def seeds() -> list[bytes]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (file, write) in enumerate(FILES.values()):
            write(Store(Path(folder)))
            data = (Path(folder) / file.name).read_bytes()
            content = state_file._verified(data, file)
            found += [bytes((number,)) + content, bytes((128 + number,)) + data]
    return found


def one(data: bytes) -> None:
    if not data:
        return
    file, content = _FILES[(data[0] & 127) % len(_FILES)], data[1:]
    value = _read(file, content if data[0] & 128 else _signed(file, content))
    if value is None:
        return
    if file.kind is not None:
        again = codec.decoder(file.kind)(codec.read(codec.write(codec.encoder(file.kind)(value))))
        assert repr(again) == repr(value)  # as text, since NaN equals nothing
    if file is STATE:
        saved = {name: getattr(value, name) for name in SavedState.__dataclass_fields__}
        del saved["network"]
        prepare_down(Observation(FACTS, State(**saved)))
    elif file is LIMITS:
        prepare_down(Observation(FACTS, State(limits=value)))
    elif file is TABLES:
        prepare_down(Observation(FACTS, State(), value))
    elif file is SAVED:
        _restore(value)
    elif file is DISCOVERED:
        assert all(is_public(text, family) in (True, False) for _, family, text in value)


def _signed(file: StateFile[Any], content: bytes) -> bytes:
    head = state_file._Head(file.name, file.version, __version__, sha256(content).hexdigest())
    start = codec.write(codec.to_json(head))[:-1]
    return start + state_file._CONTENT + content + state_file._END


def _read(file: StateFile[Any], data: bytes) -> Any:
    with patch.object(state_file, "_read_bytes", lambda path: data):
        try:
            return state_file.read(Path("/nowhere"), file)
        except Unusable as why:
            assert str(why).isprintable(), why
            return None


def _restore(saved: Any) -> None:
    """What an engine makes of it at its start, on the boot of then."""
    store: Any = SimpleNamespace(read=lambda file: saved)
    with patch("ifdefault.daemon.event_log.boot_id", lambda: saved.boot):
        restored = EventLog(store).load(RoutersSeen())
    for uplink, family, memory in restored.memories:
        restarted = path.Path(uplink, family, ("icmp://192.0.2.1",), _HEALTH, 100.0, memory)
        restarted.tick(101.0)
        restarted.asks(101.0)
        restarted.memory()
