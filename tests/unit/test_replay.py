"""Replaying: a record has the same outcome everywhere, and an error in one names its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ifdefault.cli.main import run
from ifdefault.cli.show.turns import folded, lines
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.replay import RecordError, Replay, Turn
from tests.unit.test_record import EVENTS, RECORDED

LINES = RECORDED.read_bytes().splitlines(keepends=True)
HEADER, STARTED, OBSERVED, COMMITTED = LINES[:4]
EFFECTS = """
import pathlib, sys
from ifdefault.daemon.replay import Replay
for turn in Replay(pathlib.Path(sys.argv[1])).turns():
    print(repr(turn))
"""


def edited(line: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(line) | changes).encode() + b"\n"


def turn(*events: Any, now: float = 1e9) -> bytes:
    return json.dumps({"now": now, "events": events}).encode() + b"\n"


def replayed(path: Path) -> int:
    return len([*Replay(path).turns()])


# --- the same everywhere --------------------------------------------------------------------


def test_effects_are_the_same_in_every_process() -> None:
    def effects(seed: str) -> str:
        argv = [sys.executable, "-c", EFFECTS, str(RECORDED)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        return subprocess.run(
            argv, env=environment, check=True, capture_output=True, text=True
        ).stdout

    here = "".join(f"{turn!r}\n" for turn in Replay(RECORDED).turns())
    assert here == "".join(f"{turn!r}\n" for turn in Replay(RECORDED).turns())
    assert effects("1") == effects("2") == here


# --- what is no record ----------------------------------------------------------------------

BAD: dict[str, tuple[list[bytes], str]] = {
    "empty": ([], ": empty; give a file written by ifdefault run --record"),
    "garbage": ([b"\x00\xff\n"], ":1: not the header of a record: not JSON; give a file"),
    "one cut line": ([HEADER[:-9]], ":1: not the header of a record: not JSON"),
    "other JSON": ([edited(HEADER, what="else")], ':1: not the header of a record: what: not one'),
    "a list": ([b"[]\n"], ":1: not the header of a record: not an object"),
    "no header": ([STARTED], ":1: not the header of a record: no field 'events'"),
    "another format": (
        [edited(HEADER, format=3, ifdefault="0.9")],
        ":1: format 3, written by '0.9'; this version reads formats 1 and 2",
    ),
    "no time": ([edited(HEADER, started_at="Infinity")], ":1: started_at: inf is not a valid time"),
    "unknown event": ([HEADER, turn({"type": "Sat"})], ":2: events[0]: of unknown type"),
    "wrong type": (
        [HEADER, STARTED, turn({"type": "ProbeOutcome", "path": "1", "seq": 1, "verdict": "lost"})],
        ":3: events[0].ProbeOutcome.path: not a whole number",
    ),
    "wrong facts": (
        [HEADER, turn({"type": "Observed", "observation": {"facts": {"links": 1}}, "took_s": 0})],
        ":2: events[0].Observed.observation.facts.links: not a list",
    ),
    "unknown fact": (
        [HEADER, turn({"type": "Observed", "observation": {"facts": {"x": 1}}, "took_s": 0})],
        ":2: events[0].Observed.observation.facts: no field 'x'",
    ),
    "no fact": ([HEADER, turn({"type": "Woke", "observation": {}})], ":2: events[0].Woke: "),
    "no facts": (
        [HEADER, turn({"type": "Observed", "observation": None, "took_s": 0})],
        ":2: events[0].Observed.observation: not an object",
    ),
    "events are no list": ([HEADER, b'{"now":1e9,"events":{}}\n'], ":2: events: not a list"),
    "no events": ([HEADER, b'{"now":1e9}\n'], ':2: not an object with "now" and "events"'),
    "back in time": ([HEADER, turn(now=0.5)], ":2: now: 0.5 is not a time after "),
    "no end": ([HEADER, turn(now=1e300)], ":2: now: 1e+300 is not a time after "),
    "never": ([HEADER, b'{"now":"NaN","events":[]}\n'], ":2: now: nan is not a time after "),
    "cut within": ([HEADER, STARTED[:-20] + b"\n", OBSERVED], ":2: not JSON; replay the"),
    "twice the key": ([HEADER, b'{"now":1,"now":1e9,"events":[]}\n'], ":2: not JSON"),
    "nobody asked": (
        [HEADER, STARTED, COMMITTED.replace(b'"Committed"', b'"Applied"')],
        ":3: the controller fails: AssertionError; replay the unmodified file; if it is unmodified",
    ),
    "no address": (
        [HEADER, STARTED, OBSERVED.replace(b"203.0.113.10", b"203.0.113.x")],
        ":3: the controller fails: ValueError: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, told = BAD[name]
    path = tmp_path / "r"
    path.write_bytes(b"".join(content))
    assert run(["replay", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ifdefault: {path}{told}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none", "can't be read: no such file or directory"),
        (".", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("a/b", "can't be read: no such file or directory"),
        ("x" * 300, "can't be read: file name too long"),
    ],
)
def test_no_file(name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.startswith(f"ifdefault: {tmp_path / name}: {told}; give a file")


def test_an_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifdefault.daemon.replay._MOST_BYTES", 5000)
    with pytest.raises(RecordError, match=r":3: a line of 5000 bytes or more"):
        replayed(RECORDED)


@pytest.mark.parametrize("end", [1, 20, len(COMMITTED) - 1])
def test_a_last_line_that_was_cut_off(
    end: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"".join(LINES[:3]) + COMMITTED[:end])
    assert run(["replay", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "turn 2" in out
    assert "turn 3" not in out
    assert err == (
        f"ifdefault: warning: {path}:4: truncated, as by a killed daemon;"
        " everything before it was replayed\n"
    )


@pytest.mark.parametrize("seed", range(150))
def test_any_modification_is_reported(seed: int, tmp_path: Path) -> None:
    """One byte of it: what can still be read is replayed, and there is no other error."""
    at, byte = seed * 7919 % len(text := b"".join(LINES)), b'0"x{[9-,'[seed % 8]
    path = tmp_path / "r"
    path.write_bytes(text[:at] + bytes([byte]) + text[at + 1 :])
    with suppress(RecordError):
        for each in folded(Replay(path).turns()):
            assert all(line.isprintable() for line in each)


# --- how it is shown ------------------------------------------------------------------------


def test_every_event_and_effect_has_its_line() -> None:
    for event in EVENTS:
        for line in lines(Turn(1, 0.0, (event,), ()), each_probe=True):
            assert line.isprintable()


def test_a_stranger_has_no_say_in_the_terminal() -> None:
    told = lines(Turn(1, 0.0, (e.NameResolved("\x1b[2J"),), (f.Log("a", "b\n\udc80"),)))
    assert told[1:] == ["  < \\x1b[2J is no address", "  > log a: b\\n\\x80"]


def test_quiet_turns_are_folded() -> None:
    def quiet(number: int, verdict: Any) -> Turn:
        return Turn(number, number / 2, (e.ProbeOutcome(1, number, verdict), e.Woke()), ())

    loud = Turn(5, 3.0, (e.FrontendEnded(),), ())
    turns = [quiet(1, "answered"), quiet(2, "lost"), quiet(4, "lost"), loud, quiet(6, "local")]
    assert [*folded(turns)] == [
        ["… 1.5 s, 3 turns: probes: 1 answered, 2 lost"],
        ["turn 5, 3.000 s", "  < frontend ended"],
        ["… 0.0 s, 1 turns: probes: 1 local"],
    ]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--turn", "1"], lambda out: out.count("turn ") == 1),
        (["--turn", "7"], lambda out: out.count("> send probe ") == 20),
        (["--until", "primary IPv4: none"], lambda out: out.endswith("IPv6: none -> isp-a\n")),
    ],
)
def test_what_is_asked_for(
    options: list[str], shown: Callable[[str], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", *options, str(RECORDED)]) == 0
    assert shown(capsys.readouterr().out)


def test_a_turn_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "--turn", "999", str(RECORDED)]) == 2
    assert f"has no turn 999; use 1 to {len(LINES) - 1}" in capsys.readouterr().err


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "--json", str(RECORDED)]) == 0
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [turn["turn"] for turn in turns] == [*range(1, len(LINES))]
    assert turns[1]["events"] == [{"type": "Observed", "took_s": turns[1]["events"][0]["took_s"]}]
    commit = turns[1]["effects"][-1]
    assert commit["type"] == "Commit"
    assert commit["operations"][0].startswith("ip link set dev wan0 group 171")
