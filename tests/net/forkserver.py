"""Python programs in a world without the second that their imports take: a server forks them.

Rules: what runs is a process of its own in the node's network namespace, with mounts as
`ip netns exec` makes them, and is `python -m MODULE` in all that a test can see; only its imports
were made before. Tests of the start itself use `subprocess`. Of Popen two methods are
replaced, those that start a process and that ask for its exit status.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn

import ifdefault
from ifdefault.lab import netns
from ifdefault.lab.node import Node
from ifdefault.lab.world import World
from ifdefault.libc import checked, libc

_CLONE_NEWNS, _MNT_DETACH, _MS_SLAVE, _MS_REC = 0x20000, 2, 1 << 19, 1 << 14
_FDS = 4  # a request's: standard input, output and error, and the pipe for pid and exit status
_REQUEST_BYTES = 1 << 18


class ForkedNode(Node):
    """A node whose `python -m …` are forked."""

    def _popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        if list(argv[:2]) != [sys.executable, "-m"]:
            return super()._popen(argv, **options)
        return Forked([self.netns, *argv[2:]], text=True, **options)


class ForkedWorld(World):
    node_class = ForkedNode


class Forked(subprocess.Popen[str]):
    """A process that the server has forked; `args` are namespace, module and arguments."""

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        """`rest` as in CPython 3.11 to 3.14."""
        env, pipes, own_session = rest[5], rest[9:15], rest[20]
        request = {
            "netns": args[0],
            "argv": args[1:],
            "env": dict(os.environ if env is None else env),
            "directory": os.getcwd(),
            "own_session": bool(own_session),
        }
        self._status, theirs = os.pipe()
        childs = (pipes[0], pipes[3], pipes[5])
        fds = [fd if fd >= 0 else number for number, fd in enumerate(childs)]
        try:
            socket.send_fds(_server(), [json.dumps(request).encode()], [*fds, theirs])
        finally:
            os.close(theirs)
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self.pid = int(self._read_line())
        self._child_created = True

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self._status, 1) or b"-9\n"  # the server has died
        return line

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        status = int(self._read_line())
        os.close(self._status)
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


@cache
def _server() -> socket.socket:
    """Our end of the channel to this process's server, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.net.forkserver", str(theirs.fileno())]
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
    atexit.register(_end, ours, server)
    return ours


def _end(channel: socket.socket, server: subprocess.Popen[bytes]) -> None:
    channel.close()
    server.wait()


# --- the server ------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Fork what is asked for until the other end is closed; tell pid and status of each."""
    _import_all()
    gc.freeze()
    wake, wakes = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    pipes: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _report_ended(pipes)
        if channel.fileno() in ready:
            text, fds, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, _FDS)
            if not text:
                return
            pid = os.fork()
            if not pid:
                channel.close()
                _be_forked(json.loads(text), fds[:3], [*fds, *pipes.values(), wake, wakes])
            pipes[pid] = fds[3]
            os.write(fds[3], b"%d\n" % pid)
            for fd in fds[:3]:
                os.close(fd)


def _report_ended(pipes: dict[int, int]) -> None:
    while pipes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        pipe = pipes.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody asks any more
            os.write(pipe, b"%d\n" % status)
        os.close(pipe)


def _import_all() -> None:
    """All of the program, but for what only its frontend may import."""
    for module in pkgutil.walk_packages(ifdefault.__path__, "ifdefault."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from ifdefault.config.parse import parse

    parse('[uplink.a]\ninterface = "a"\n', "")  # pydantic builds its validators now


def _be_forked(request: dict[str, Any], standard: list[int], inherited: list[int]) -> NoReturn:
    """Be `python -m MODULE ARGUMENT…` in a namespace."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if request["own_session"]:
            os.setsid()
        for number, fd in enumerate(standard):
            os.dup2(fd, number)
        for fd in inherited:
            os.close(fd)
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["directory"])
        _enter(request["netns"])
        module, *sys.argv[1:] = request["argv"]
        status = _exit_status(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # whatever it is, the interpreter prints it
        traceback.print_exc()
    finally:
        os._exit(status)


def _exit_status(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def _enter(name: str) -> None:
    """Into a network namespace, and a /sys that shows it: ip-netns(8), netns_switch()."""
    netns.enter(name)
    checked(libc.unshare(_CLONE_NEWNS), "unshare")
    _mount(b"", b"/", b"none", _MS_SLAVE | _MS_REC)
    libc.umount2(b"/sys", _MNT_DETACH)
    _mount(name.encode(), b"/sys", b"sysfs", 0)


def _mount(source: bytes, target: bytes, kind: bytes, flags: int) -> None:
    checked(libc.mount(source, target, kind, ctypes.c_ulong(flags), None), f"mount {target!r}")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
