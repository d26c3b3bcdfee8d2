"""`status --watch` shows what changes while one looks."""

from __future__ import annotations

import subprocess
from itertools import takewhile

from tests.net import answers
from tests.net.conftest import LabWorld


def test_watch_shows_an_uplink_that_goes(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.apply(world)
    command = [*world.command, "status", "--watch"]
    child = world["host"].popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    first = list(takewhile(lambda line: not line.startswith("isp-b"), child.stdout))
    assert any(line.startswith("default:wan1") for line in first)
    world["host"].ip("link set wan1 down\n")
    assert any("isp-b" in line and "pending" in line for line in child.stdout)
    child.terminate()
    child.wait()
    child.stdout.close()
