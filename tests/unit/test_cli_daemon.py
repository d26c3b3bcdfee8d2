"""The subcommands that send requests to the daemon: their requests, and how they show responses."""

from __future__ import annotations

import gc
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ifdefault.cli import daemon_client, main, status
from ifdefault.cli.options import Options
from ifdefault.cli.show import paths
from ifdefault.host.status import Status as HostStatus
from ifdefault.host.status_forward import ForwardStatus, ServiceStatus
from ifdefault.ipc.codec import from_json
from ifdefault.ipc.control import client
from ifdefault.ipc.control.client import Closed, NotRunning
from ifdefault.ipc.control.protocol import (
    Confirm,
    Down,
    EventList,
    Events,
    Reload,
    Reply,
    Request,
    SetUplink,
    Status,
    UplinkChanged,
)
from ifdefault.model import report_text
from ifdefault.model.changes import Changes
from ifdefault.model.errors import ConfigError, HostError, Problem
from ifdefault.model.health import Decision, Health, TargetHealth
from ifdefault.model.report import DaemonStatus, Event

Answer = Callable[[Any], Reply]

TOLD = Changes(
    operations=("ip rule add …",),
    pending={"isp-c": "no address"},
    problems=(Problem("rule 5", "catches", warning=True),),
    tables={},
    ready=2,
    uplinks=3,
)
STATUS = DaemonStatus(
    pid=7,
    up_s=100.0,
    now_s=1000.0,
    config="/etc/ifdefault/ifdefault.toml",
    health=(
        Health("isp-a", 4, "down", 996.0, "4 rounds lost in 310 ms", 0.5, 12.3, "answers"),
        Health("isp-a", 6, "up", 700.0, "icmp://[2001:db8::1] answers", 0.004, 30.0, "silent"),
        Health(
            "isp-b", 4, "recovering", 999.0, "traffic flows", until_s=1001.5,
            targets=(TargetHealth("icmp://192.0.2.1", note="never answered"),),
        ),
    ),
    decision=Decision(
        order=((4, ("isp-b", "isp-a")), (6, ("isp-a",))),
        usable=((4, ("isp-b",)), (6, ("isp-a",))),
    ),
    forced={"isp-b": "drain"},
    held="undone in 5 s unless you run: ifdefault confirm",
    conflicts=("another program keeps undoing: ip rule add …",),
    problems=("example.net doesn't resolve",),
    rates={"isp-a": (1_250_000.0, 0.0)},
)  # fmt: skip


class Daemon:
    """A fake daemon: records requests, and gives the response that the test sets."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.answer: Answer = lambda _: TOLD

    def listener(self, path: Path) -> str:
        assert path == client.socket_path(Path("/run/x"))
        return "" if self.answer is absent else "1"

    def __call__(self, run_dir: Path, request: Request, timeout_s: float) -> Reply:
        assert run_dir == Path("/run/x")
        assert timeout_s > 1
        self.asked.append(request)
        return self.answer(request)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setenv("IFDEFAULT_RUN_DIR", "/run/x")
    daemon = Daemon()
    monkeypatch.setattr(client, "ask", daemon)
    monkeypatch.setattr(client, "listener", daemon.listener)
    return daemon


def refuse(_: Request) -> Reply:
    raise ConfigError(Problem("f.toml:3: uplink.a", "no good"))


def absent(_: Request) -> Reply:
    raise NotRunning(Problem("", "no daemon runs", "start it"))


# --- who does the work ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["apply"], Reload()),
        (["apply", "--wait", "--confirm", "60"], Reload(60)),
        (["reload"], Reload()),
        (["down"], Down()),
        (["confirm"], Confirm()),
    ],
)
def test_where_a_daemon_runs_it_does_the_work(
    daemon: Daemon,
    arguments: list[str],
    asked: Request,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(arguments) == 0
    assert daemon.asked == [asked]
    told = capsys.readouterr()
    assert told.out == ("kept\n" if arguments == ["confirm"] else "ip rule add …\n")
    if "--confirm" in arguments:
        assert told.err == (
            "warning: rule 5: catches\n"
            "1 operations performed; 2 of 3 uplinks in use\n"
            "undone in 60 s unless you run: ifdefault confirm\n"
        )
    if arguments == ["down"]:
        assert told.err == (
            "warning: rule 5: catches\nthe daemon changes nothing until you run: ifdefault apply\n"
        )


@pytest.mark.parametrize("name", ["apply", "reload", "down"])
def test_json_is_the_same_as_without_a_daemon(
    daemon: Daemon, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "operations": ["ip rule add …"],
        "pending": {"isp-c": "no address"},
        "problems": [
            {
                "where": "rule 5",
                "what": "catches",
                "remedy": "",
                "warning": True,
                "blocks": True,
                "hint": False,
            }
        ],
        "tables": {},
        "ready": 2,
        "uplinks": 3,
        "dns": [],
    }
    assert len(daemon.asked) == 1


@pytest.mark.parametrize("name", ["apply", "reload"])
def test_a_refused_config_is_told_as_check_tells_it(
    daemon: Daemon, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answer = refuse
    assert main.run([name]) == 2
    assert capsys.readouterr().err == "f.toml:3: uplink.a: no good\n"


@pytest.mark.parametrize("arguments", [["reload"], ["uplink"], ["uplink", "a", "up"], ["events"]])
def test_what_only_a_daemon_can_do(
    daemon: Daemon, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answer = absent
    assert main.run(arguments) == 1
    assert re.match("ifdefault: ([a-z]+: )?no daemon runs; ", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["plan", "check", "explain", "status"])
def test_a_plan_follows_what_the_daemon_decided(
    daemon: Daemon, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon.answer = lambda _: STATUS
    config = tmp_path / "f.toml"
    config.write_text('[uplink.a]\ninterface = "wan0"\n')
    monkeypatch.setenv("IFDEFAULT_CONFIG", str(config))
    seen: list[object] = []

    def prepare(*_: object, decision: Decision | None, **__: object) -> None:
        seen.append(decision)
        raise HostError("enough")

    for function in ("prepare", "prepare_file", "prepare_config"):
        monkeypatch.setattr(f"ifdefault.host.transaction.{function}", prepare)
    arguments = ["tcp", "any", "192.0.2.1:80"] if name == "explain" else []
    assert main.run([name, *arguments]) == 1
    daemon.answer = absent
    assert main.run([name, *arguments]) == 1
    assert seen == [STATUS.decision, None]


# --- run -----------------------------------------------------------------------------------


def test_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[object, ...]] = []

    def run(*arguments: object, verbose: bool, record: Path | None) -> int:
        calls.append((*arguments, verbose, record))
        return 3

    module = types.ModuleType("ifdefault.daemon.engine")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ifdefault.daemon.engine", module)
    # the collector of this process must not change: Hypothesis asks it who refers to an object
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    config = tmp_path / "f.toml"
    config.write_text('[uplink.a]\ninterface = "wan0"\n')
    where = ["-c", str(config), "--state-dir", "/s", "--run-dir", "/r"]
    assert main.run([*where, "run", "-v"]) == 3
    assert main.run([*where, "run", "--record", "f"]) == 3
    paths = config, Path("/s"), Path("/r")
    assert calls == [(*paths, True, None), (*paths, False, Path("f"))]
    config.write_text("[uplink.a]\n")
    assert main.run([*where, "run"]) == 2  # before anything of the daemon runs
    assert len(calls) == 2


# --- reload --------------------------------------------------------------------------------


def test_reload_says_what_of_the_dns_changed(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    dns = ("dns.name www.example.net: added",)
    daemon.answer = lambda _: replace(TOLD, problems=(), dns=dns)
    assert main.run(["reload"]) == 0
    assert capsys.readouterr() == (
        "ip rule add …\ndns.name www.example.net: added\n",
        "1 operations performed, 1 changes of the DNS; 2 of 3 uplinks in use\n",
    )
    daemon.answer = lambda _: replace(TOLD, problems=(), operations=(), dns=dns)
    assert main.run(["reload"]) == 0
    assert capsys.readouterr().err == "1 changes of the DNS; 2 of 3 uplinks in use\n"


# --- uplink --------------------------------------------------------------------------------


def test_uplink_forces(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answer = lambda _: UplinkChanged("isp-a", "auto", "drain")
    assert main.run(["uplink", "isp-a", "drain"]) == 0
    assert daemon.asked == [SetUplink("isp-a", "drain")]
    assert capsys.readouterr().out == "isp-a: auto -> drain\n"
    daemon.answer = lambda _: UplinkChanged("isp-a", "drain", "drain")
    assert main.run(["uplink", "isp-a", "drain"]) == 0
    assert capsys.readouterr() == ("", "isp-a: already drain, without a timeout\n")
    assert main.run(["uplink", "isp-a", "drain", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"uplink": "isp-a", "was": "drain", "state": "drain"}


def test_uplink_shows(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answer = lambda _: STATUS
    assert main.run(["uplink"]) == 0
    assert capsys.readouterr().out == (
        "Uplink  Forced  Observed\n"
        "isp-a   auto    IPv4 down, IPv6 up\n"
        "isp-b   drain   IPv4 recovering\n"
    )
    assert main.run(["uplink", "isp-b", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"isp-b": {"forced": "drain", "observed": {"4": "recovering"}}}
    assert main.run(["uplink", "isp-c"]) == 1
    assert (
        capsys.readouterr().err
        == 'ifdefault: uplink: "isp-c" is not an uplink; use one of isp-a, isp-b\n'
    )
    assert main.run(["uplink", "isp-a", "sideways"]) == 2
    assert daemon.asked == 3 * [Status()]


# --- events --------------------------------------------------------------------------------


def event(n: int) -> Event:
    return Event(1_700_000_000.25 + n, "path", "a", f"event {n}", "error", n)


def test_events(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answer = lambda request: EventList((event(1), event(2)))
    assert main.run(["events", "-n", "2"]) == 0
    assert daemon.asked == [Events(2)]
    lines = capsys.readouterr().out.splitlines()
    when = r"2023-11-1\dT\d\d:\d\d:\d1\.250[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{when}  path      event 1", lines[0])
    assert len(lines) == 2
    assert main.run(["events", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [
        {
            "at": 1_700_000_000.25 + n,
            "kind": "path",
            "uplink": "a",
            "text": f"event {n}",
            "severity": "error",
            "serial": n,
        }
        for n in (1, 2)
    ]


def test_events_follow_from_daemon_to_daemon(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing new, something, no daemon, one that ends, and one that has lost what was."""
    gone = (NotRunning("no daemon runs"), Closed("the daemon closed the connection"))
    there: Iterator[int | HostError] = iter([2, 2, 3, *gone, 5, 1, 3])
    afters = iter([-1, 2, 2, 3, 3, 3, 5, 1])

    def answer(request: Events) -> Reply:
        try:
            last = next(there)
        except StopIteration:
            raise KeyboardInterrupt from None
        assert request.after == next(afters)
        if isinstance(last, HostError):
            raise last
        return EventList(tuple(event(n) for n in range(request.after + 1, last + 1)), last)

    daemon.answer = answer
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert main.run(["events", "--follow", "--json"]) == 130
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["serial"] for each in told] == [0, 1, 2, 3, 4, 5, 2, 3]


# --- status --------------------------------------------------------------------------------


def test_the_state_of_the_uplinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = [re.sub("  +", "|", line) for line in paths.lines(STATUS)]
    assert lines == [
        "Uplink|State|Since|Loss|RTT|Role|Cause",
        "isp-a|IPv4|down|4.0s|50 %|12.3 ms|not used|4 rounds lost in 310 ms",
        "isp-a|IPv6|up|5m00s|0.4 %|30.0 ms|primary|2001:db8::1 answers",
        "isp-b|IPv4|recovering|1.0s|0.0 %|-|primary|forced drain, up in 1.5s, traffic flows",
        "held: undone in 5 s unless you run: ifdefault confirm",
        "another program keeps undoing: ip rule add …",
        "example.net doesn't resolve",
        "isp-b IPv4: icmp://192.0.2.1 never answered",
        "isp-a IPv6: its gateway doesn't answer",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"), (0.04, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"),
        (59.6, "1m00s"), (192, "3m12s"), (3599.7, "1h00m"), (7500, "2h05m"), (356400, "4d3h"),
    ],
)  # fmt: skip
def test_ages(seconds: float, text: str) -> None:
    assert report_text.age(seconds) == text


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "0 bit/s"), (940, "940 bit/s"), (999.6, "1 kbit/s"), (1_250_000, "1.25 Mbit/s"),
        (999_600, "1 Mbit/s"), (10_000_000_000, "10 Gbit/s"), (123_456_000, "123 Mbit/s"),
    ],
)  # fmt: skip
def test_rates(bits: float, text: str) -> None:
    assert report_text.rate(bits) == text


WELL = HostStatus(True, (), (), {}, {}, (), ())
QUIET = DaemonStatus(1, 1.0, 1.0, "x", (Health("a", 4, "up", 0.0, ""),))


@pytest.mark.parametrize(
    ("daemon_status", "no_response", "is_ok"),
    [
        (None, "", True),
        (None, "the daemon doesn't answer in 5 s", False),
        (QUIET, "", True),
        (DaemonStatus(1, 1.0, 1.0, "x", held="why"), "", False),
        (DaemonStatus(1, 1.0, 1.0, "x", conflicts=("what",)), "", False),
        (DaemonStatus(1, 1.0, 1.0, "x", (Health("a", 4, "down", 0.0, ""),)), "", False),
    ],
)
def test_exit_status_of_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    daemon_status: DaemonStatus | None,
    no_response: str,
    is_ok: bool,
) -> None:
    seen = status._Snapshot(WELL, daemon_status, no_response)
    monkeypatch.setattr(status, "_read", lambda _: seen)
    assert main.run(["status"]) == (0 if is_ok else 1)
    told = capsys.readouterr().out
    assert ("no daemon runs: nothing is probed\n" in told) == (
        daemon_status is None and not no_response
    )
    assert f"no status from the daemon: {no_response}\n" in told or not no_response
    assert main.run(["status", "--json"]) == (0 if is_ok else 1)
    daemon = json.loads(capsys.readouterr().out)["daemon"]
    assert (from_json(DaemonStatus, daemon) if daemon else None) == daemon_status


def test_a_service_without_a_server_is_nothing_well() -> None:
    service = ServiceStatus("tcp:443", (), (), 0, ("tcp:443 IPv4",))
    assert status._Snapshot(WELL, QUIET).is_ok
    assert not status._Snapshot(replace(WELL, forward=ForwardStatus((service,))), QUIET).is_ok


def test_a_daemon_that_is_mute_hides_nothing_else(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mute(_: Request) -> Reply:
        raise HostError("the daemon doesn't answer in 5 s")

    daemon.answer = mute
    monkeypatch.setattr("ifdefault.host.transaction.prepare_file", lambda *_, **__: None)
    monkeypatch.setattr("ifdefault.host.status.read_status", lambda *_, **__: WELL)
    seen = status._read(Options(run_dir=Path("/run/x"), state_dir=Path("/nonexistent")))
    assert seen == status._Snapshot(WELL, None, "the daemon doesn't answer in 5 s")


def test_what_an_engine_refuses_is_our_error(daemon: Daemon) -> None:
    options = Options(run_dir=Path("/run/x"))
    daemon.answer = refuse
    with pytest.raises(ConfigError, match=r"f\.toml:3: uplink\.a: no good"):
        daemon_client.ask(options, Status())
    with pytest.raises(ConfigError):
        daemon_client.ask(options, Down())
