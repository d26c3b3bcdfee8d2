"""The monitor beside a daemon: it records and mails what happens, and outlives both ends.

                ┌─ isp-a ── wan0 ┐   isp-a forwards nothing for a while
client ── core ─┤                ├ host
 (mail)         └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ifdefault.lab import faults
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.monitor.history.reader import reading
from ifdefault.monitor.status_file import read_status
from tests.net.conftest import LabWorld
from tests.net.watched import FAR, await_states, events, public_run_dir, start
from tests.unit.receivers import Received, Receiver, mail_receiver

ADDRESS_B = "198.51.100.10"


def _command(world: World, *arguments: str) -> list[str]:
    """With a state directory that the monitor's user may reach."""
    return [*world.command, "--state-dir", str(world.run_dir / "state"), *arguments]


def _started(world: World) -> subprocess.Popen[str]:
    with open(world.run_dir / "monitor.log", "a") as log:
        child = world["host"].popen(_command(world, "monitor"), stdout=log, stderr=log)

    def runs() -> bool:
        status = read_status(world.run_dir, time.time())
        return status is not None and status.pid == child.pid

    eventually(runs, what="the monitor runs")
    return child


def _end(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGTERM)
    assert child.wait(PATIENCE_S) == 0


def _history(world: World, *more: str) -> Any:
    return json.loads(_shown(world, "--json", *more))


def _shown(world: World, *arguments: str) -> str:
    return world["host"].run(_command(world, "history", *arguments)).stdout


def _outages(world: World) -> list[Any]:
    return [o for o in _history(world, "isp-a")["outages"] if o["family"] == 4]


def _has_counts(world: World) -> bool:
    """Each event is followed by a sample, a second after the last one."""
    world.ifdefault("uplink", "isp-b", "drain", check=True)
    world.ifdefault("uplink", "isp-b", "auto", check=True)
    with reading(world.run_dir / "state") as reader:
        return any(i.tally.answered and i.path == ("isp-a", 4) for i in reader.minutes(0, 1e10))


def _recorded(world: World) -> list[str]:
    with reading(world.run_dir / "state") as reader:
        return [event.text for event in reader.events(0, 1e10)]


@contextmanager
def _mail_server(world: World) -> Iterator[Receiver]:
    """At the client."""
    with ExitStack() as stack:
        with world["client"].enter():
            receiver = stack.enter_context(mail_receiver(address=FAR[4]))
        yield receiver


def _notify(receiver: Receiver) -> str:
    return f"""
[[notify]]
name = "ops"
mail = "admin@example.org"
smtp = "smtp://{FAR[4]}:{receiver.port}"
severity = "info"
group = "1s"
"""


def _has_sent(world: World) -> bool:
    status = read_status(world.run_dir, time.time())
    return status is not None and all(not each.waiting for each in status.notifiers)


def _mails(receiver: Receiver, text: str) -> list[Received]:
    return [each for each in receiver.accepted if text in each.mail.get_content()]


def test_an_outage_is_recorded_and_reported(lab_world: LabWorld) -> None:
    world = lab_world("two")
    with public_run_dir(world), _mail_server(world) as receiver:
        start(world, _notify(receiver))
        monitor = _started(world)
        state = world.run_dir / "state"
        assert os.stat(f"/proc/{monitor.pid}").st_uid != 0
        with faults.injected(world, "blackhole", "isp-a"):
            eventually(lambda: len(_outages(world)) == 1, what="the outage is in the history")
            [outage] = _outages(world)
            assert outage["until"] is None
            eventually(lambda: _mails(receiver, "isp-a is down"), what="a mail")
            [mail] = _mails(receiver, "isp-a is down")
            assert mail.peer == ADDRESS_B, "the uplink that works"
            assert "; new connections use isp-b" in mail.mail["Subject"]
            print(f"mail {mail.at - outage['since']:.2f} s after the event")
            # nothing is lost or twofold over a restart
            eventually(lambda: _has_sent(world), what="the monitor knows that it arrived")
            _end(monitor)
            monitor = _started(world)
        await_states(world, ["up"])
        eventually(lambda: _outages(world)[0]["until"], what="the end of the outage")
        [outage] = _outages(world)
        assert 0 < outage["duration_s"] < 60
        eventually(lambda: _has_sent(world), what="all is sent")
        monitor.kill()
        monitor.wait()
        monitor = _started(world)
        eventually(lambda: _has_counts(world), what="probes are counted")
        eventually(lambda: _recorded(world) == events(world), what="each event, once")
        eventually(lambda: _mails(receiver, " up again after "), what="a second mail")
        # isp-a is fine, but the mail server can't be reached by it
        world["isp-a"].run(["ip", "route", "add", "unreachable", FAR[4]])
        world.ifdefault("reload", check=True)
        eventually(lambda: _mails(receiver, "reload"), what="a mail by the other uplink")
        assert _mails(receiver, "reload")[0].peer == ADDRESS_B
        _end(monitor)
        mails = Counter(received.mail["Message-ID"] for received in receiver.accepted)
        assert set(mails.values()) == {1}
        with reading(state) as reader:
            recorded = reader.events(0, 1e10)
            assert [e.text for e in recorded] == events(world)
            assert len({e.serial for e in recorded}) == len(recorded)
            intervals = [i for i in reader.minutes(0, 1e10) if i.path == ("isp-a", 4)]
            assert sum(i.tally.down_ms for i in intervals) > 0

        shown = _shown(world, "isp-a")
        assert "isp-a IPv4" in shown
        assert max(map(len, shown.splitlines())) <= 80
        report = _shown(world, "--report", str(outage["outage"]))
        assert "OUTAGE OF isp-a (IPv4)" in report
        assert "down: " in report
        assert "Probes by the minute" in report
