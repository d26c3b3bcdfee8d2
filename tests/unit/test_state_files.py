"""Whatever is in a state file: it is used or set aside, it is reported once, and nothing fails."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ifdefault import __version__
from ifdefault.daemon import usage_file
from ifdefault.daemon.controller import state as controller_state
from ifdefault.daemon.controller.budgets import Budgets
from ifdefault.daemon.controller.effects import Save
from ifdefault.daemon.controller.events import TrafficCounted
from ifdefault.daemon.dns.cookie_secrets import COOKIES
from ifdefault.daemon.dns.dynamic_update import UPDATES
from ifdefault.daemon.dns.embedded import SERIALS
from ifdefault.daemon.dns.programs import PROGRAMS
from ifdefault.daemon.event_log import SAVED, EventLog
from ifdefault.daemon.usage_file import USAGE
from ifdefault.health.states import Memory
from ifdefault.host import state_file, store
from ifdefault.host.last_config import LAST_CONFIG, UNCONFIRMED
from ifdefault.host.rollback_timer import PENDING, Pending
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.saved_state import DISCOVERED, STATE, TABLES
from ifdefault.host.settle import SETTLE, Settling
from ifdefault.host.state_file import StateFile, Unusable
from ifdefault.host.store import LOCK, Store
from ifdefault.ipc import codec
from ifdefault.model.config import Config, UplinkConfig
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.errors import HostError, LockError
from ifdefault.model.health import LinkCounter
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import (
    PROTOCOL,
    Desired,
    Facts,
    Hop,
    Link,
    Neighbour,
    NftTable,
    Route,
    Rule,
    Ruleset,
)
from ifdefault.model.usage import SavedCount, SavedUsage, Slice
from ifdefault.plan.prepare import prepare_down

FACTS = Facts(
    links=(Link(1, "lo"), Link(2, "wan0", group=171)),
    rules=(Rule(4, 5010, table=254, suppress_ifgroup=171, protocol=PROTOCOL),),
    sysctls=(("net/ipv4/conf/wan0/rp_filter", "2"),),
)
NUMBERS = {"isp-a": 1, "isp-b": 2}
A_STATE = State(
    NUMBERS,
    {"net/ipv4/conf/wan0/rp_filter": ("1", "2")},
    {"wan0": (0, 171)},
    {"isp-b": "drain"},
    {"/user.slice/ifdefault-isp-a": "isp-a"},
    {"wan0": 2},
)
DESIRED = Desired(
    (Route(4, 1001, "default", hops=(Hop("wan0", "192.0.2.1"),), protocol=PROTOCOL),),
    FACTS.rules,
    sysctls=FACTS.sysctls,
    groups=(("wan0", 171),),
)
Write = Callable[[Store], None]


def save_health(store: Store) -> None:
    routers = RoutersSeen()
    router = Neighbour(4, "wan0", "192.0.2.1", "02:00:00:00:00:01", True)
    routers.known[("wan0", "192.0.2.1")] = router
    log = EventLog(store)
    log.note("path", "isp-a IPv4: up -> down (8 rounds lost)", "isp-a")
    memory = Memory("down", 12.5, "lost", (0.5, 1.0), (("icmp://192.0.2.1", 3.5),), (9.0,))
    candidate = CandidateAddresses("isp-a", 1, ("192.0.2.10",))
    log.save(Save((("isp-a", 4, memory),), (candidate,)), routers)


def writes(file: StateFile[Any], value: Any) -> Write:
    """Writes JSON as the owner of the file would write the value."""
    return lambda store: store.write(file, codec.decoder(file.kind)(value))


JOB = {
    "key": {"kind": "exec", "where": "/bin/true", "zone": "", "name": "www.example.net"},
    "published": {"ttl": 30, "addresses": ["192.0.2.10"]},
    "ours": ["192.0.2.10"],
    "certain": True,
}
COUNTED = SavedCount(
    "lte",
    "wwan0",
    3,
    10**9,
    7,
    ((20_786, 9), (20_787, 5)),
    (Slice(9.5, 3600.0, 8),),
    ((20_758, 1),),
)
CARRIED = SavedUsage(1.8e9, 700.0, (COUNTED,))
SERIAL = {"serial": 1764000000, "digest": "0" * 64}
FILES: dict[str, tuple[StateFile[Any], Write]] = {
    file.name: (file, write)
    for file, write in (
        (STATE, lambda store: store.save(A_STATE)),
        (TABLES, lambda store: store.save_tables((("ifdefault", Ruleset("x", NftTable("y"))),))),
        (SAVED, save_health),
        (PENDING, lambda store: store.write(PENDING, Pending("a", 9.0, DESIRED, {"wan0": 2}))),
        (SETTLE, lambda store: store.write(SETTLE, Settling(9.0))),
        (LAST_CONFIG, writes(LAST_CONFIG, {"at": 1.0, "file": "/f", "text": "[uplink.a]\n"})),
        (UNCONFIRMED, writes(UNCONFIRMED, "0" * 64)),
        (SERIALS, writes(SERIALS, {"example.net": SERIAL})),
        (UPDATES, writes(UPDATES, {"example.net": {"www.example.net": ["192.0.2.10"]}})),
        (PROGRAMS, writes(PROGRAMS, [JOB])),
        (COOKIES, writes(COOKIES, [{"since_s": 1764000000, "secret": "0f" * 16}])),
        (DISCOVERED, writes(DISCOVERED, [["isp-a", 4, "192.0.2.10"]])),
        (USAGE, lambda store: usage_file.save(store, CARRIED)),
    )
}
ODD: tuple[Any, ...] = (None, 7, -1, "x", "\0", "\ud800", [], [[1]], {}, {"a": None}, True)
ODD += (10**30, 1e308, "NaN", "Infinity", {"": [{}]}, "../" * 99, "é" * 300)


def damages(data: bytes, random: Random) -> Iterator[bytes]:
    """A damaged medium, an unfinished write, another program's file."""
    yield from (b"", b"{}", b"[]", b"null", b'"x"', b"[" * 100_000, b"9" * 5000, b"\xff" * 99)
    yield from (bytes(len(data)), random.randbytes(200), data * 2, data[:-1] + b" ", data + b"\n")
    yield from (b'{"numbers": {"isp-a": 1}}', data.replace(b"1", b"2"), data.upper())
    yield from (data[:length] for length in random.sample(range(len(data)), 40))
    for position in random.sample(range(len(data)), 80):
        flipped = bytes([data[position] ^ 1 << random.randrange(8)])
        yield data[:position] + flipped + data[position + 1 :]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a JSON value."""
    yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


def put(value: Any, at: tuple[Any, ...], odd: Any) -> Any:
    if not at:
        return odd
    if isinstance(value, dict):
        return value | {at[0]: put(value[at[0]], at[1:], odd)}
    return [put(v, at[1:], odd) if n == at[0] else v for n, v in enumerate(value)]


def signed(head: dict[str, Any], content: Any) -> bytes:
    """A file with a valid checksum."""
    text = json.dumps(content)
    head = head | {"sha256": sha256(text.encode()).hexdigest()}
    return f'{json.dumps(head)[:-1]},\n"content": {text}\n}}\n'.encode()


def mistakes(data: bytes, random: Random) -> Iterator[bytes]:
    """Content that our own code should never have written, with a valid checksum."""
    file = json.loads(data)
    content = file.pop("content")
    yield signed(file, {"from_the_future": 1})
    for at in places(content):
        for odd in random.sample(ODD, 6) if at else ODD:
            yield signed(file, put(content, at, odd))
        if at and isinstance(at[-1], str):
            yield signed(file, put(content, at[:-1], {at[-1]: None}))
    for name in ("file", "version", "by"):
        yield from (signed(file | {name: odd}, content) for odd in ODD)
    yield signed({k: v for k, v in file.items() if k != "version"}, content)


def use(daemon: Store) -> None:
    """All that is done with state files before anything else."""
    for file, _ in FILES.values():
        daemon.read(file)
    state = daemon.load()
    EventLog(daemon).load(RoutersSeen())
    lte = UplinkConfig("lte", "wwan0", budget_bytes=10)
    budgets = Budgets(controller_state.State(config=Config((lte,))))
    budgets.restored = usage_file.load(daemon)
    counters = (LinkCounter("lte", 3, 10**9, 7),)
    budgets.observe(TrafficCounted(1.8e9, 1.8e9, counters, 800.0))
    budgets.saved()
    prepare_down(Observation(FACTS, state, daemon.load_tables()))


@pytest.mark.parametrize("name", FILES)
def test_no_content_of_a_file_makes_anything_fail(tmp_path: Path, name: str) -> None:
    file, write = FILES[name]
    write(Store(tmp_path))
    path, random = tmp_path / name, Random(name)
    data = path.read_bytes()
    good = Store(tmp_path).read(file)
    assert good
    tried = 0
    for text in (*damages(data, random), *mistakes(data, random)):
        tried += 1
        for left in tmp_path.iterdir():
            left.unlink()
        path.write_bytes(text)
        daemon = Store(tmp_path, daemon=True)
        use(daemon)
        news = daemon.take_news()
        assert len(news) == (not path.exists()), (text, news)  # set aside, and reported once
        if path.exists():  # it was odd, but valid
            assert daemon.read(file) is not None
            continue
        [aside] = tmp_path.iterdir()
        assert aside.read_bytes() == text
        assert aside.name in str(news[0])
        daemon.write(file, good)
        daemon.flush()
        assert Store(tmp_path).read(file) == good
        assert daemon.take_news() == ()
    assert tried >= 200, "too few variants"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_isnt_a_file_is_set_aside(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / STATE.name)
    daemon = Store(tmp_path, daemon=True)
    assert daemon.load() == State()
    [news] = daemon.take_news()
    assert "is damaged: not a regular file, set aside as state.json.damaged-" in str(news)
    daemon.save(A_STATE)
    assert Store(tmp_path).load().numbers == NUMBERS


def test_a_copy_is_used_and_the_file_is_written_again(tmp_path: Path) -> None:
    Store(tmp_path).save(A_STATE)
    (tmp_path / STATE.name).write_text("{")
    daemon = Store(tmp_path, daemon=True)
    assert daemon.load() == A_STATE
    [news] = daemon.take_news()
    assert str(news).endswith("; its copy state.json.v1 is used")
    (tmp_path / STATE.copy).unlink()
    assert Store(tmp_path).load() == A_STATE
    (tmp_path / STATE.name).unlink()
    assert Store(tmp_path).load() == State()


def test_only_the_latest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / SAVED.name
    for n in range(9):
        path.with_name(f"{path.name}.damaged-2026010{n}T000000Z").touch()
    path.write_text("{")
    other = tmp_path / "serials.json.damaged-20260101T000000Z"
    other.touch()
    assert Store(tmp_path, daemon=True).read(SAVED) is None
    kept = [aside for aside, name in state_file.damaged(tmp_path) if name == SAVED.name]
    assert len(kept) == state_file.MOST_DAMAGED
    assert other.exists()


def test_who_doesnt_hold_the_lock_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / STATE.name).write_text("{")
    reader = Store(tmp_path)
    assert reader.load() == State()
    assert reader.take_news() == ()
    [problem] = reader.examine()
    assert "is damaged: not a state file of ifdefault" in str(problem)
    with reader.lock():
        reader.load()
    [problem] = reader.examine()
    assert "state.json was damaged" in str(problem)
    assert not (tmp_path / STATE.name).exists()


@pytest.mark.parametrize(
    ("figures", "what"),
    [
        ({"f_flag": os.ST_RDONLY, "f_bfree": 9}, "read-only file system; repair it"),
        ({"f_flag": 0, "f_bfree": 0}, "no space left on device; free space"),
    ],
)
def test_a_directory_that_cant_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: dict[str, int], what: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=9, **figures))
    [problem] = Store(tmp_path).examine()
    assert str(problem) == f"{tmp_path}: can't be written: {what}"
    monkeypatch.undo()
    assert not [*Store(tmp_path).examine()]
    assert not [*Store(tmp_path / "none").examine()]


# --- other versions -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_newer_version_finds_its_file_again_and_so_do_we(tmp_path: Path, name: str) -> None:
    file, write = FILES[name]
    write(Store(tmp_path))
    ours = Store(tmp_path).read(file)
    newer = replace(file, kind=None, version=2, check=None)
    upgraded = Store(tmp_path, daemon=True)
    assert upgraded.read(newer) is None
    upgraded.write(newer, {"new": 1})
    upgraded.flush()
    assert file.copy in {path.name for path in tmp_path.iterdir()}

    downgraded = Store(tmp_path, daemon=True)
    assert downgraded.read(file) == ours, "the last good state"
    [news] = downgraded.take_news()
    assert f"is of a newer ifdefault ({__version__}, format 2;" in str(news)
    assert f"; this is {__version__}, format 1), set aside as {newer.copy}; " in str(news)
    write(downgraded)
    downgraded.flush()
    assert downgraded.take_news() == ()
    assert Store(tmp_path, daemon=True).read(newer) == {"new": 1}


# --- what can't be saved --------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A disk that is full as long as the list isn't empty."""
    is_full = ["yes"]
    replace_file = state_file.replace

    def refuse(path: Path, file: StateFile[Any], value: Any) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        replace_file(path, file, value)

    monkeypatch.setattr(state_file, "replace", refuse)
    return is_full


def test_the_daemon_keeps_what_it_cant_save_and_says_so_once(
    tmp_path: Path, full: list[str]
) -> None:
    daemon = Store(tmp_path, daemon=True)
    for number in range(1, 9):
        daemon.save(replace(A_STATE, numbers={"isp-a": number}))
        daemon.save_tables((("ifdefault", Ruleset(str(number), NftTable())),))
        assert daemon.load().numbers == {"isp-a": number}
    daemon.flush()
    assert daemon.load_tables() == (("ifdefault", Ruleset("8", NftTable())),)
    news = list(map(str, daemon.take_news()))
    assert len(news) == 2, news
    assert news[0].endswith("state.json: can't be saved: no space left on device; kept in memory")
    assert len(daemon.unsaved) == 2
    daemon.write_again()
    daemon.flush()
    assert daemon.take_news() == ()
    full.clear()
    daemon.write_again()
    daemon.flush()
    assert len(daemon.take_news()) == 2
    assert "".join(daemon.unsaved) == ""
    assert Store(tmp_path).load().numbers == {"isp-a": 8}
    assert Store(tmp_path).load_tables() == daemon.load_tables()


def test_apply_is_refused_only_if_originals_cant_be_saved(tmp_path: Path, full: list[str]) -> None:
    with pytest.raises(HostError, match="can't be saved: no space left on device; free space"):
        Store(tmp_path).save(A_STATE)
    full.clear()
    Store(tmp_path).save(A_STATE)
    full.append("again")
    later = Store(tmp_path)
    later.save(replace(later.load(), numbers={"isp-a": 7}))
    assert later.unsaved
    with pytest.raises(HostError):
        later.save(replace(later.load(), groups={}))


def test_files_are_as_private_as_they_must_be(tmp_path: Path) -> None:
    for _, write in FILES.values():
        write(Store(tmp_path))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    private = {name for name, mode in modes.items() if not mode & 0o077}
    assert private == {LAST_CONFIG.name, LAST_CONFIG.copy, COOKIES.name}


def test_no_order_of_faults_loses_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old content or the new one is there, whichever system call fails."""
    Store(tmp_path).save_tables((("ifdefault", Ruleset("old", NftTable())),))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    for owner, name in ((os, "fsync"), (Path, "replace")):
        with monkeypatch.context() as faulty:
            faulty.setattr(owner, name, refuse)
            with pytest.raises(HostError):
                Store(tmp_path).save_tables((("ifdefault", Ruleset("new", NftTable())),))
        assert [p.name for p in tmp_path.iterdir()] == [TABLES.name]
        assert dict(Store(tmp_path).load_tables())["ifdefault"].text == "old"


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    Store(tmp_path).save(A_STATE)
    file = json.loads((tmp_path / STATE.name).read_text())
    assert {k: file[k] for k in ("file", "version", "by")} == {
        "file": "state.json",
        "version": 1,
        "by": __version__,
    }
    assert file["content"]["numbers"] == NUMBERS
    with pytest.raises(Unusable, match="it is a copy of 'state"):
        state_file.read(tmp_path / STATE.name, TABLES)


def test_locks_need_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(store, "private", refuse)
    with pytest.raises(HostError, match="can't be used"), Store(tmp_path).lock():
        pass
    with Store(tmp_path, daemon=True).lock():
        pass
    (tmp_path / LOCK).touch()
    with Store(tmp_path).lock(), pytest.raises(LockError), Store(tmp_path, daemon=True).lock():
        pass


def test_a_fault_while_a_file_is_written_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in the thread that writes files that aren't urgent."""

    def fail(*_: Any) -> None:
        raise TypeError("not JSON")

    daemon = Store(tmp_path, daemon=True)
    monkeypatch.setattr(state_file, "replace", fail)
    EventLog(daemon).save(Save((), ()), RoutersSeen())
    daemon.flush()
    [problem] = daemon.unsaved
    assert problem.endswith("health.json: can't be saved: internal error: TypeError: not JSON")
    assert "internal error" in caplog.text
