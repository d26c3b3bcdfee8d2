"""The page's helper: a process that runs programs for it, since its sandbox lets it run none.

    page ──> Load, Explain ──> helper ──> `python -m ifdefault.web.settings`, `ifdefault explain`
         <── Settings, Explained, Faults

Rules: it has the same user, and no privileges either. It runs one program at a time, with a time
limit, and never one that a request names: the arguments of Explain come after "--". It ends with
the page. It is forked before the page has loaded anything, and so takes little memory.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from ifdefault.ipc import codec, log, privileges
from ifdefault.ipc.fields import number, text
from ifdefault.model.errors import HostError, Problem, reason
from ifdefault.web.settings import Faults, Settings

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
    iif: Annotated[str, text(r"[^\s/-][^\s/]{0,14}|")] = ""
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

    def __init__(self, files: Files, uid: int, gid: int) -> None:
        """Start the process; to be called before any thread is started."""
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if not self.pid:
            self.sock.close()
            _run(theirs, files, uid, gid)
        theirs.close()

    def settings(self) -> Settings:
        """The config's settings, before there is a loop; HostError."""
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
    """HostError says why there are none."""
    if isinstance(reply, Settings):
        return reply
    raise HostError(*(reply.texts if isinstance(reply, Faults) else ("no settings",)))


# --- the process --------------------------------------------------------------------------


def _run(sock: socket.socket, files: Files, uid: int, gid: int) -> None:
    try:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C is for the page, and it ends with that
        privileges.drop(uid, gid, parent_death=signal.SIGKILL, oom_score_adj=500)
        while line := sock.recv(_LONGEST):
            request = _decode_request(codec.read(line))
            reply = _load(files) if isinstance(request, Load) else _explain(files, request)
            sock.sendall(codec.write(_encode_reply(reply)))
    except Exception as error:
        log.exception(error, "the page's helper ends", fatal=True)
    finally:
        os._exit(1)


def _python(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-s", "-m", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False
    )


def _load(files: Files) -> Reply:
    try:
        done = _python("ifdefault.web.settings", str(files.config))
        reply: Reply = _decode_reply(codec.read(done.stdout))
    except subprocess.TimeoutExpired:
        return Faults((f"{files.config}: not read in {LIMIT_S:g} s",))
    except codec.DecodeError:
        return Faults((f"{files.config}: can't be read: {_last_line(done.stderr)}",))
    except OSError as error:
        return Faults((f"{files.config}: can't be read: {reason(error)}",))
    return reply


def _explain(files: Files, request: Explain) -> Reply:
    common = ("-c", files.config, "--state-dir", files.state_dir, "--run-dir", files.run_dir)
    try:
        done = _python("ifdefault", *map(str, common), *request.arguments())
    except subprocess.TimeoutExpired:
        return Faults((f"explain: not done in {LIMIT_S:g} s; try again",))
    except OSError as error:
        return Faults((f"explain: can't be run: {reason(error)}",))
    said = done.stderr[:_MOST_OUTPUT].decode("utf-8", "replace").splitlines()
    output = done.stdout[:_MOST_OUTPUT].decode("utf-8", "replace")
    if not output.strip():
        lines = tuple(line.removeprefix("ifdefault: ") for line in said)
        return Faults(lines or (f"explain: ended with status {done.returncode}",))
    return Explained(output, tuple(said))


def _last_line(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
