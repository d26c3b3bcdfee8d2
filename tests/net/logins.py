"""A login on a terminal of its own, as sshd starts it, on the host of a world."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import termios
from collections.abc import Sequence
from dataclasses import dataclass

from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World


@dataclass
class Login:
    """The program that was started first, usually a shell, and its terminal. `unread`: what the
    terminal has shown behind what was waited for."""

    shell: subprocess.Popen[str]
    terminal_fd: int
    unread: str = ""


def log_in(world: World, argv: Sequence[str]) -> Login:
    terminal_fd, own_fd = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    shell = subprocess.Popen(
        ["ip", "netns", "exec", world["host"].netns, *argv],
        stdin=own_fd,
        stdout=own_fd,
        stderr=own_fd,
        text=True,
        env=world["host"].environment(),
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(own_fd)
    return Login(shell, terminal_fd)


def hang_up(login: Login) -> None:
    os.killpg(login.shell.pid, signal.SIGHUP)


def kill_all(login: Login) -> None:
    os.killpg(login.shell.pid, signal.SIGKILL)


def close_terminal(login: Login) -> None:
    os.close(login.terminal_fd)


def press(login: Login, keys: str) -> None:
    os.write(login.terminal_fd, keys.encode())


def read_terminal(login: Login, until: str) -> str:
    """What the terminal shows, until this does."""
    said = login.unread
    while until not in said:
        ready = select.select([login.terminal_fd], [], [], PATIENCE_S)[0]
        assert ready, f"{until!r} isn't in {said!r}"
        said += os.read(login.terminal_fd, 4096).decode()
    login.unread = said.partition(until)[2]
    return said
