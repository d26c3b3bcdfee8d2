"""Hooks as real programs: environment, how they are ended, and that nothing waits for them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.process import output, runner, spawn
from ifdefault.daemon.process.hooks import RUNNING, WAITING, Hooks
from ifdefault.model.config import Config, DaemonConfig, HookConfig
from tests.unit.open_files import open_files

NOBODY = DaemonConfig(hook_user="nobody")


class Log(logging.Logger):
    """What was logged, as "level text"."""

    def __init__(self) -> None:
        super().__init__("hooks")
        self.lines: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname.lower()} {record.getMessage()}")


class Shop:
    """A directory of hooks, which their user can read, and may write to."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, Log()
        self.hooks: Hooks  # in a running loop

    def program(self, name: str, script: str) -> str:
        path = self.root / name
        path.write_text(f"#!/bin/sh\ncd {self.root}\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def play(
        self, config: HookConfig, part: Callable[[], Awaitable[None]], daemon: DaemonConfig = NOBODY
    ) -> None:
        before = open_files()

        async def main() -> None:
            self.hooks = Hooks(Config((), daemon=daemon, hooks=config), self.log)
            try:
                await part()
            finally:
                await self.hooks.close()

        asyncio.run(main())
        assert open_files() == before

    @property
    def busy(self) -> bool:
        return bool(self.hooks._runner or self.hooks._waiting)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def logged(self, pattern: str) -> str:
        """The first line that is like this."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [line for line in self.log.lines if re.search(pattern, line)]
            return bool(found)

        await self.until(is_there)
        return found[0]

    def noted(self) -> list[str]:
        """What hooks wrote into the file `notes`."""
        path = self.root / "notes"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def shop() -> Iterator[Shop]:
    with tempfile.TemporaryDirectory() as directory:  # a test's own only its user can read
        os.chmod(directory, 0o777)
        yield Shop(Path(directory))


def lives(pid: str) -> bool:
    """Whether a process lives; an orphan's remains are another's to take away."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_a_hook_gets_the_event_and_no_other_environment(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "key")
    script = (
        "env | sort; echo from $OLDPWD; readlink /proc/self/fd/0; readlink /proc/$$/fd/* > fds;"
        " cut -d ' ' -f 6 /proc/$$/stat; echo $$"
    )
    program = shop.program("down", script)

    async def part() -> None:
        shop.hooks.fire(
            "down",
            uplink="isp-a",
            family="4",
            was="up",
            state="down",
            cause="4 rounds\nlost \x1b[31min 310 ms",
        )
        await shop.until(lambda: not shop.busy)

    shop.play(HookConfig(down=program), part)
    head = f"info hook down ({program}): "
    assert all(line.startswith(head) for line in shop.log.lines)
    said = [line.removeprefix(head) for line in shop.log.lines]
    names = {line.partition("=")[0] for line in said if "=" in line}
    ours = {f"IFDEFAULT_{k}" for k in "EVENT UPLINK FAMILY WAS STATE CAUSE".split()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == ours | {"PATH"}  # those four are the shell's
    assert {
        "IFDEFAULT_EVENT=down",
        "IFDEFAULT_UPLINK=isp-a",
        "IFDEFAULT_FAMILY=4",
        "IFDEFAULT_WAS=up",
        "IFDEFAULT_STATE=down",
        "IFDEFAULT_CAUSE=4 rounds lost [31min 310 ms",
    } <= set(said)
    assert {"/dev/null", "from /"} <= set(said)
    open_files = set((shop.root / "fds").read_text().split())
    assert {f for f in open_files if not f.startswith("pipe:")} <= {
        *("/dev/null", program, str(shop.root / "fds"))
    }
    session, own = said[-2:]
    assert session == own


def test_what_an_event_lacks_is_empty(shop: Shop) -> None:
    program = shop.program("primary", 'echo "[$IFDEFAULT_STATE][${IFDEFAULT_CAUSE-unset}]"')

    async def part() -> None:
        shop.hooks.fire("primary", state="isp-b")
        await shop.logged(re.escape("[isp-b][]"))

    shop.play(HookConfig(primary=program), part)


def test_events_without_a_hook(shop: Shop) -> None:
    async def part() -> None:
        for event in ("up", "degraded", "down", "primary", "recovering", "unproven", "timeout_s"):
            shop.hooks.fire(event, uplink="isp-a")
        assert not shop.busy

    shop.play(HookConfig(), part, DaemonConfig(hook_user="no-such-user"))
    assert shop.log.lines == []


def test_a_hook_that_fails(shop: Shop) -> None:
    program = shop.program("up", "echo trouble >&2; exit 3")

    async def part() -> None:
        shop.hooks.fire("up", uplink="isp-a")
        await shop.logged("exit status 3")

    shop.play(HookConfig(up=program), part)
    assert shop.log.lines == [
        f"info hook up ({program}): trouble",
        f"warning hook up ({program}): exit status 3",
    ]


def test_a_hook_that_isnt_there(shop: Shop) -> None:
    async def part() -> None:
        shop.hooks.fire("up", uplink="isp-a")
        await shop.logged("exit status 126")

    shop.play(HookConfig(up="/no/such"), part)
    assert shop.log.lines[0] == "info hook up (/no/such): /no/such: no such file or directory"


@pytest.mark.parametrize("deaf", ["", "trap '' TERM;"])
def test_a_hook_that_hangs_is_ended_with_all_it_started(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, deaf: str
) -> None:
    monkeypatch.setattr(runner, "KILL_S", 0.2)
    script = f"{deaf} sleep 1000 & echo $! >> notes; echo $$ >> notes; wait; sleep 1000"
    program = shop.program("down", script)

    async def part() -> None:
        shop.hooks.fire("down", uplink="isp-a")
        await shop.until(lambda: len(shop.noted()) == 2)
        await shop.logged(r"warning hook down .* killed after 1 s \(timeout\)")
        await shop.until(lambda: not any(map(lives, shop.noted())))

    shop.play(HookConfig(down=program, timeout_s=1), part)


def test_nothing_waits_for_a_hook_that_hangs(shop: Shop) -> None:
    down = shop.program("down", "echo down >> notes; sleep 1000")
    primary = shop.program("primary", "echo primary >> notes")

    async def part() -> None:
        start_s = time.monotonic()
        shop.hooks.fire("down", uplink="isp-a", family="4")
        shop.hooks.fire("down", uplink="isp-a", family="6")
        shop.hooks.fire("primary", uplink="isp-b", family="4")
        assert time.monotonic() - start_s < 0.5
        await shop.until(lambda: sorted(shop.noted()) == ["down", "down", "primary"])

    shop.play(HookConfig(down=down, primary=primary, timeout_s=1000), part)


def test_those_of_one_path_run_in_order(shop: Shop) -> None:
    down = shop.program("down", "sleep 0.2; echo down >> notes")
    up = shop.program("up", "echo up >> notes")

    async def part() -> None:
        for event in ("down", "up", "down", "up"):
            shop.hooks.fire(event, uplink="isp-a", family="4")
        await shop.until(lambda: len(shop.noted()) == 4)

    shop.play(HookConfig(down=down, up=up), part)
    assert shop.noted() == ["down", "up", "down", "up"]


def test_there_are_never_too_many(shop: Shop) -> None:
    program = shop.program(
        "up", 'echo "$IFDEFAULT_UPLINK" >> notes; until [ -e go ]; do sleep 0.05; done'
    )
    count = RUNNING + WAITING + 3

    async def part() -> None:
        for number in range(count):
            shop.hooks.fire("up", uplink=f"isp-{number}")
        await shop.until(lambda: len(shop.noted()) == RUNNING)
        shop.hooks.config = Config((), daemon=NOBODY)  # what waits goes on as it was told
        (shop.root / "go").touch()
        await shop.until(lambda: not shop.busy)

    shop.play(HookConfig(up=program, timeout_s=60), part)
    dropped = {f"isp-{number}" for number in range(RUNNING, RUNNING + 3)}
    assert set(shop.noted()) == {f"isp-{number}" for number in range(count)} - dropped
    assert len(shop.noted()) == WAITING + RUNNING
    line = f"warning hook up ({program}): dropped: {WAITING} others are waiting"
    assert shop.log.lines == [line] * 3


def test_a_hook_that_says_too_much(shop: Shop) -> None:
    script = f"yes x | head -n {runner.LINES + 7}; printf '%05000d' 0 >&2; exit 1"
    program = shop.program("up", script)

    async def part() -> None:
        shop.hooks.fire("up", uplink="isp-a")
        await shop.logged("exit status 1")

    shop.play(HookConfig(up=program), part)
    head = f"info hook up ({program}): "
    assert shop.log.lines[: runner.LINES] == [f"{head}x"] * runner.LINES
    assert shop.log.lines[runner.LINES] == f"{head}8 more lines"
    assert len(shop.log.lines) == runner.LINES + 2


def test_a_line_is_bounded_and_printable(shop: Shop) -> None:
    program = shop.program("up", r"printf '%09000d\n' 0; printf 'a\033[2Jb\377\n'; printf end")

    async def part() -> None:
        shop.hooks.fire("up", uplink="isp-a")
        await shop.logged(": end$")

    shop.play(HookConfig(up=program), part)
    said = [line.partition("): ")[2] for line in shop.log.lines]
    assert said == ["0" * output.LINE_CHARS, "a [2Jb\N{REPLACEMENT CHARACTER}", "end"]


def test_the_end_of_the_daemon_is_theirs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "KILL_S", 0.2)
    program = shop.program("up", "trap '' TERM; echo $$ >> notes; sleep 1000; sleep 1000")

    async def part() -> None:
        for number in range(RUNNING + 2):
            shop.hooks.fire("up", uplink=f"isp-{number}")
        await shop.until(lambda: len(shop.noted()) == RUNNING)

    shop.play(HookConfig(up=program, timeout_s=1000), part)
    assert len(shop.noted()) == RUNNING
    assert not any(map(lives, shop.noted()))


def test_a_missing_user_is_logged_once(shop: Shop) -> None:
    async def part() -> None:
        (line,) = shop.log.lines
        assert line.startswith("warning daemon.hook_user: user no-such-user does not exist; using")

    shop.play(HookConfig(up="/bin/true"), part, DaemonConfig(hook_user="no-such-user"))


def test_a_host_that_can_start_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(spawn, "Child", refuse)

    async def part() -> None:
        shop.hooks.fire("up", uplink="isp-a")
        assert not shop.busy

    shop.play(HookConfig(up="/bin/true"), part)
    assert shop.log.lines == [
        "warning hook up (/bin/true): can't be run: resource temporarily unavailable"
    ]
