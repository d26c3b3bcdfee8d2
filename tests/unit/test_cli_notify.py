"""`ifdefault notify`: what it shows of the notifiers, and its tests of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.cli import main, status
from ifdefault.cli.options import Options
from ifdefault.monitor.notify.report import NotifierReport
from ifdefault.monitor.status_file import StatusFile, status_dir
from tests.unit.receivers import http_receiver

UPLINK = '[uplink.isp-a]\ninterface = "wan0"\n'
CONFIG = f"""{UPLINK}
[[notify]]
name = "ops"
mail = "admin@example.org"
smtp = "smtp://127.0.0.1:1"

[[notify]]
name = "hook"
webhook = "http://127.0.0.1:PORT/secret"
"""
Run = Callable[..., int]


@pytest.fixture
def options(folder: Path) -> Options:
    (folder / "ifdefault.toml").write_text(CONFIG)
    return Options(folder / "ifdefault.toml", folder / "state", folder / "run")


@pytest.fixture
def run(options: Options) -> Run:
    """Run the command; return its exit status."""
    given = (f"--config={options.config}", f"--run-dir={options.run_dir}")
    return lambda *arguments: main.run([*given, "notify", *arguments])


def test_the_state_of_each(run: Run, options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    file = StatusFile(options.run_dir)
    status_dir(options.run_dir).mkdir(parents=True)
    ops = NotifierReport("ops", "mail", "admin@example.org", sent_at=now - 192.0, said="250 ok")
    hook = NotifierReport("hook", "webhook", "http://127.0.0.1")
    file.notifiers = (ops, replace(hook, waiting=2, held_until=now + 60.0))
    file.write()
    assert run() == 0
    assert [line.split()[:6] for line in capsys.readouterr().out.splitlines()] == [
        ["Notifier", "By", "To", "State", "Waiting", "Sent"],
        ["ops", "mail", "admin@example.org", "current", "0", "3m12s"],
        ["hook", "webhook", "http://127.0.0.1", "pending", "2", "-"],
        ["quiet", "until", time.strftime("%H:%M", time.localtime(now + 60.0))],
    ]
    failing = replace(hook, waiting=2, failures=3, failing_since=now - 60.0, retry_at=now + 9.6)
    file.notifiers = (ops, replace(failing, error="no answer"))
    file.say("notify hook", "no answer")
    assert run() == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "failing 2 - no answer, failing for 1m00s, 3 attempts, next in" in shown
    assert run("--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["running"]
    assert report["notifiers"][1]["error"] == "no answer"
    snapshot = status._Snapshot(None, None, monitor=status._read_monitor(options))  # type: ignore[arg-type]
    assert status._monitor(snapshot) == ["notify hook: no answer"]


def test_without_a_monitor_they_are_listed_without_secrets(
    run: Run, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    options.config.write_text(CONFIG.replace("PORT", "80"))
    assert run() == 1
    shown = capsys.readouterr()
    assert "the monitor doesn't run, so nothing is sent" in shown.err
    assert "admin@example.org" in shown.out
    assert "http://127.0.0.1" in shown.out
    assert "secret" not in shown.out


def test_a_test_is_sent_by_all_or_those_that_are_named(
    run: Run, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_receiver() as receiver:
        options.config.write_text(CONFIG.replace("PORT", str(receiver.port)))
        assert run("test") == 1
        assert set(capsys.readouterr().out.splitlines()) == {
            "ops: failed: connecting to 127.0.0.1: connection refused",
            "hook: sent to http://127.0.0.1: 200 OK",
        }
        assert run("test", "--json", "hook") == 0
        assert json.loads(capsys.readouterr().out) == [
            {"name": "hook", "sent": True, "said": "200 OK"}
        ]
        bodies = [json.loads(received.body) for received in receiver.accepted]
    assert [body["test"] for body in bodies] == [True, True]
    assert bodies[0]["subject"].endswith(": test of the notifier hook")
    assert len({body["id"] for body in bodies}) == 2


@pytest.mark.parametrize("arguments", [(), ("test",)])
def test_there_may_be_none(
    run: Run, options: Options, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    options.config.write_text(UPLINK)
    assert run(*arguments) == 1
    assert f"{options.config}: has no [[notify]]; add one; see" in capsys.readouterr().err


def test_an_unknown_name(run: Run, options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    options.config.write_text(CONFIG.replace("PORT", "80"))
    assert run("test", "opps") == 2
    assert 'no notifier "opps"; use ops, hook' in capsys.readouterr().err
