"""The page's helper: a process that reads the config and explains packets for the page, which is
too small and too confined for that.

    page ──> Load, Explain ──> helper ──> a child for each, which ends when it is done
         <── Settings, Explained, Faults

Rules: it has the same user, and no privileges either. It has one child at a time, for a limited
time, which takes what a request says as arguments after "--". It ends with the page. It is forked
before the page has loaded anything, and so takes little memory.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from ifdefault.ipc import codec, log, privileges
from ifdefault.ipc.fields import number, text
from ifdefault.model.errors import ConfigError, HostError, Problem, reason
from ifdefault.web.settings import Faults, Settings, read_or_faults

LIMIT_S = 10.0  # of one program
_LONGEST = 1 << 17  # of a message
_MOST_OUTPUT = 1 << 16
Protocol = Literal["tcp", "udp", "icmp", "icmp6"]
PROTOCOLS = get_args(Protocol)
_ADDRESS, _PORT = r"[0-9a-fA-F:.]{2,45}", r":\d{1,5}"
_End = Annotated[
    str, text(rf"any|{_ADDRESS}|[0-9.]{{7,15}}{_PORT}|\[{_ADDRESS}\]{_PORT}|any{_PORT}")
]


@dataclass(frozen=True, slots=True)
class Load:
    """Read the config."""


@dataclass(frozen=True, slots=True)
class Explain:
    """The arguments of `ifdefault explain`."""

    protocol: Protocol
    source: _End
    target: _End
    iif: Annotated[str, text(r"[^\s/\x00-\x1f\x7f-][^\s/\x00-\x1f\x7f]{0,14}|")] = ""
    mark: Annotated[int, number(0, (1 << 32) - 1)] = 0
    uid: Annotated[int, number(0, (1 << 32) - 2)] = 0

    def arguments(self) -> list[str]:
        optional = [f"--iif={self.iif}"] if self.iif else []
        optional += [f"--mark={self.mark:#x}", f"--user={self.uid}", "--json", "--"]
        return ["explain", *optional, self.protocol, self.source, self.target]


@dataclass(frozen=True, slots=True)
class Explained:
    """`explanation`: as JSON. `notes`: what else it printed."""

    explanation: str
    notes: tuple[str, ...]


Command = Callable[[Sequence[str]], int]
Request = Load | Explain
Reply = Settings | Explained | Faults
_encode_request, _decode_request = codec.encoder(Request), codec.decoder(Request)
_encode_reply, _decode_reply = codec.encoder(Reply), codec.decoder(Reply)


@dataclass(frozen=True, slots=True)
class Files:
    """The global options of the command line."""

    config: Path
    state_dir: Path
    run_dir: Path


class Helper:
    """The page's end: a request at a time."""

    def __init__(
        self, files: Files, load: Callable[[], None], command: Command, uid: int, gid: int
    ) -> None:
        """Start the process; to be called before any thread is started. `load` is called
        before it drops its privileges; `command` runs a command line of ours."""
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if not self.pid:
            self.sock.close()
            _run(theirs, files, load, command, uid, gid)
        theirs.close()

    def settings(self) -> Settings:
        """The config's settings, before there is a loop; ConfigError."""
        self.sock.sendall(codec.write(_encode_request(Load())))
        return settings_in(self.receive(self.sock.recv(_LONGEST)))

    def send(self, request: Request) -> bytes:
        return codec.write(_encode_request(request))

    def receive(self, line: bytes) -> Reply:
        if not line:
            raise HostError(Problem("", "the helper process has ended", "restart ifdefault web"))
        reply: Reply = _decode_reply(codec.read(line))
        return reply

    def close(self) -> None:
        self.sock.close()


def settings_in(reply: Reply) -> Settings:
    """ConfigError says why there are none."""
    if isinstance(reply, Settings):
        return reply
    raise ConfigError(*(reply.texts if isinstance(reply, Faults) else ("no settings",)))


# --- the process --------------------------------------------------------------------------


def _run(
    sock: socket.socket,
    files: Files,
    load: Callable[[], None],
    command: Command,
    uid: int,
    gid: int,
) -> None:
    try:
        load()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the page; it ends with that
        privileges.drop(uid, gid, parent_death=signal.SIGKILL, oom_score_adj=500)
        while line := sock.recv(_LONGEST):
            request = _decode_request(codec.read(line))
            reply = _load(files) if isinstance(request, Load) else _explain(files, command, request)
            sock.sendall(codec.write(_encode_reply(reply)))
    except ConnectionError:  # the page has ended
        pass
    except Exception as error:
        log.exception(error, "the page's helper ends", fatal=True)
    finally:
        os._exit(1)


def _load(files: Files) -> Reply:
    def load() -> int:
        encoded = _encode_reply(read_or_faults(files.config))
        sys.stdout.buffer.write(codec.write(encoded))
        return 0

    done = _forked(load)
    try:
        reply: Reply = _decode_reply(codec.read(done.output))
    except codec.DecodeError:
        return Faults((f"{files.config}: can't be read: {done.why or _last_line(done.errors)}",))
    return reply


def _explain(files: Files, command: Command, request: Explain) -> Reply:
    common = ("-c", files.config, "--state-dir", files.state_dir, "--run-dir", files.run_dir)
    done = _forked(lambda: command([*map(str, common), *request.arguments()]))
    said = done.errors.decode("utf-8", "replace").splitlines()
    output = done.output.decode("utf-8", "replace")
    if not output.strip():
        lines = tuple(line.removeprefix("ifdefault: ") for line in said)
        # of an invalid argument, without how the command is used
        errors = tuple(e for line in lines if (e := line.removeprefix("Error: ")) != line)
        return Faults(errors or lines or (f"explain: {done.why or 'no answer'}",))
    return Explained(output, tuple(said))


@dataclass(frozen=True, slots=True)
class _Done:
    output: bytes
    errors: bytes
    why: str = ""  # it didn't end by itself


def _forked(work: Callable[[], int]) -> _Done:
    """Do it in a child, for a limited time."""
    output, errors = os.memfd_create("output"), os.memfd_create("errors")
    try:
        try:
            pid = os.fork()
        except OSError as error:
            return _Done(b"", b"", f"no process for it: {reason(error)}")
        if not pid:
            _work(work, output, errors)
        pidfd = os.pidfd_open(pid)
        with os.fdopen(pidfd, closefd=True):
            ended, _, _ = select.select([pidfd], [], [], LIMIT_S)
            if not ended:
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        why = "" if ended else f"not done in {LIMIT_S:g} s"
        return _Done(os.pread(output, _MOST_OUTPUT, 0), os.pread(errors, _MOST_OUTPUT, 0), why)
    finally:
        os.close(output)
        os.close(errors)


def _work(work: Callable[[], int], output: int, errors: int) -> None:
    try:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        os.write(errors, f"internal error: {error!r}\n".encode(errors="replace"))
        raise
    finally:
        os._exit(0)


def _last_line(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
