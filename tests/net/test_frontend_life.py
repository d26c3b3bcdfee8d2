"""How a frontend begins and ends, and what becomes of one that misbehaves, or that is too slow."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.process import frontend_connection
from ifdefault.ipc import channel, privileges
from ifdefault.ipc.child import python
from ifdefault.ipc.messages import Outcome, Ping, Resolve, Resolved, Send
from ifdefault.lab.node import Node
from ifdefault.model.errors import HostError
from tests.net.conftest import LabWorld
from tests.net.test_frontend import CLIENT, PATIENT_MS, stopped, talking, until
from tests.unit.certificates import Authority

MIB = 1 << 20
NOBODY = 65534


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_it_is_small(lab_world: LabWorld) -> None:
    async def main() -> None:
        async with talking(lab_world("one")) as talk:
            talk.bind(1, 4)
            assert (await talk.ask("icmp", CLIENT[4])).verdict == "answered"
            assert resident_bytes(talk.frontend.pid) <= 30 * MIB

    asyncio.run(main())


def test_what_it_is_made_of() -> None:
    script = "import sys, ifdefault.frontend.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "ifdefault.frontend.probe.icmp" in loaded
    heavy = {"pydantic", "pydantic_core", "click", "cryptography", "dns", "lexicon"}
    assert not loaded & heavy
    ours = {name.split(".")[1] for name in loaded if name.startswith("ifdefault.")}
    assert ours == {"frontend", "ipc", "dns", "libc", "model"}
    assert not any(name.startswith("ifdefault.frontend.server") for name in loaded)


def test_it_ends_with_its_channel_and_not_by_ctrl_c(lab_world: LabWorld) -> None:
    async def main() -> None:
        async with talking(lab_world("one")) as talk:
            os.kill(talk.frontend.pid, signal.SIGINT)
            await talk.settled()

    asyncio.run(main())  # `talking` looks at the rest


def test_its_death_is_told(lab_world: LabWorld) -> None:
    async def main() -> None:
        async with talking(lab_world("one")) as talk:
            os.kill(talk.frontend.pid, signal.SIGKILL)
            await until(lambda: talk.ends, "its end")
            assert talk.ends == ["killed by signal 9"]
            assert not Path(f"/proc/{talk.frontend.pid}").exists()  # reaped
            talk.frontend.send(Ping(1))  # to nobody, which is no error
            talk.frontend.close()
            assert len(talk.ends) == 1

    asyncio.run(main())


def test_names_are_resolved(lab_world: LabWorld) -> None:
    async def main() -> None:
        async with talking(lab_world("one")) as talk:
            for name in ("localhost", "no-such-name.invalid"):
                talk.frontend.send(Resolve(name))
            await until(lambda: len(talk.heard) == 2, "both names")
            told = {m.host: m for m in talk.heard if isinstance(m, Resolved)}
            assert "127.0.0.1" in told["localhost"].addresses
            assert not told["localhost"].error
            assert not told["no-such-name.invalid"].addresses
            assert told["no-such-name.invalid"].error

    asyncio.run(main())


def test_a_slow_face_holds_up_nobody(lab_world: LabWorld) -> None:
    """What it is too slow for is dropped, oldest first, and told; nothing leaks."""
    count = 3000

    async def main() -> None:
        async with talking(lab_world("one")) as talk:
            talk.bind(1, 4)
            await talk.settled()
            before = descriptors(os.getpid())
            with stopped(talk.frontend.pid):
                start_s = time.monotonic()
                for turn in range(count):
                    if turn % 10:
                        talk.send("icmp", CLIENT[4])
                    else:
                        talk.send("tcp", CLIENT[4], 7999)
                assert time.monotonic() - start_s < 30
                assert talk.dropped
                assert talk.frontend.drops == len(talk.dropped)
            await until(
                lambda: len(talk.heard) - 1 + len(talk.dropped) == count, "all are told or dropped"
            )
            assert all(isinstance(message, Send) for message in talk.dropped)
            lost = {message.seq for message in talk.dropped if isinstance(message, Send)}
            told = {message.seq for message in talk.heard if isinstance(message, Outcome)}
            assert not lost & told
            assert max(told) == talk.seq
            assert descriptors(os.getpid()) == before
            await talk.settled()
            assert descriptors(talk.frontend.pid) < 20

    asyncio.run(main())


def test_a_descriptor_that_nobody_asked_for_is_closed(lab_world: LabWorld) -> None:
    async def main() -> None:
        async with talking(lab_world("one")) as talk:
            await talk.settled()
            before = descriptors(talk.frontend.pid)
            with open("/dev/null", "rb") as null:
                for _ in range(20):
                    talk.frontend.send(Ping(0), [null.fileno()])
                talk.frontend.send(
                    Send(1, 7, "tcp", CLIENT[4], 80, "", "", (), PATIENT_MS), [null.fileno()]
                )
            assert (await talk.outcome(7)).verdict == "local"  # no socket at all
            await talk.settled()  # it is told before it is closed
            assert descriptors(talk.frontend.pid) == before

    asyncio.run(main())


# --- words that are none ------------------------------------------------------------------


@pytest.mark.parametrize("packet", [b"garbage", b"{}", b'{"type":"Ping","token":-1}', b"[" * 8000])
def test_a_face_that_is_told_nonsense_ends(packet: bytes) -> None:
    ours, theirs = channel.pair()
    uid, gid = privileges.possible(NOBODY, NOBODY)
    command = python("ifdefault.frontend.main", theirs.fileno(), uid, gid)
    with ours:
        with theirs:
            child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        ours.setblocking(True)
        assert b"Ready" in ours.recv(100)
        ours.send(packet)
        _, said = child.communicate(timeout=20)
    assert child.returncode == 1
    assert b"error the channel to the engine failed: it sent an invalid message" in said
    assert said.count(b"\n") == 1


GIVE_UP = "import os\nfrom ifdefault.ipc.privileges import drop\ndrop(uid, gid)\n"
SAY_READY = 'sock.send(b\'{"type":"Ready","pid":%d,"version":"1"}\' % os.getpid())\n'
MISBEHAVING = {
    "it kept privileges: CapPrm": f"import os\n{SAY_READY}sock.recv(9)",
    "it sent a message before it was ready": (
        'sock.send(b\'{"type":"Pong","token":1}\')\nsock.recv(9)'
    ),
    "it sent an invalid message": "sock.send(b'garbage')\nsock.recv(9)",
    "exit status 3": "raise SystemExit(3)",
    "not ready after": "sock.recv(9)",
    "it closed the channel": "sock.close()\nwhile True: pass",
}


def be(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let another program be the frontend."""
    head = (
        "import socket, sys\nfd, uid, gid = map(int, sys.argv[1:])\n"
        "sock = socket.socket(fileno=fd)\nsock.setblocking(True)\n"
    )

    def command(_: str, *arguments: int) -> list[str]:
        return [sys.executable, "-c", head + script, *map(str, arguments)]

    monkeypatch.setattr(frontend_connection, "python", command)


@pytest.mark.parametrize("why", MISBEHAVING)
def test_a_false_face_is_not_started(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    be(monkeypatch, MISBEHAVING[why])
    if why.startswith("not ready"):
        monkeypatch.setattr(frontend_connection, "READY_S", 0.3)

    async def main() -> None:
        with pytest.raises(HostError, match=f"the frontend didn't start: {why}"):
            await frontend_connection.start_frontend((NOBODY, NOBODY), nothing, nothing)

    before = descriptors(os.getpid())
    asyncio.run(main())
    assert descriptors(os.getpid()) == before


@pytest.mark.parametrize(
    "word", ['{"type":"Outcome"}', '{"type":"Ping","token":1}', "x" * 9000, '{"type":"Pong"}' * 2]
)
def test_a_face_that_says_nonsense_is_ended(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """It may be anybody's by now."""
    be(
        monkeypatch,
        f"{GIVE_UP}{SAY_READY}sock.recv(99)\nsock.send({word!r}.encode())\nsock.recv(9)",
    )

    async def main() -> None:
        heard: list[Any] = []
        ends: list[str] = []
        frontend = await frontend_connection.start_frontend(
            (NOBODY, NOBODY), heard.append, ends.append
        )
        frontend.send(Ping(1))
        await until(lambda: ends, "its end")
        assert ends[0].startswith("it sent an invalid message")
        assert not heard

    asyncio.run(main())


def nothing(_: object) -> None:
    """Hear, and pass over."""


# --- certificates -------------------------------------------------------------------------


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """One that the frontend trusts; its user can't read what is in a test's own directory."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        made = Authority(Path(directory))
        monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
        yield made


async def serve(node: Node, port: int, context: ssl.SSLContext | None) -> asyncio.Server:
    """A web server at the client."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    with node.enter():
        return await asyncio.start_server(answer, CLIENT[4], port, ssl=context)


def test_certificates_are_checked(lab_world: LabWorld, authority: Authority) -> None:
    world = lab_world("one")
    servers: dict[int, ssl.SSLContext | None] = {
        443: authority.context("www.example"),
        444: Authority(authority.file.parent / "other").context("www.example"),
        445: None,
        446: authority.context(CLIENT[4]),
    }

    async def main() -> None:
        running = [await serve(world["client"], *server) for server in servers.items()]
        async with talking(world) as talk:

            async def get(port: int, host: str) -> str:
                outcome = await talk.ask("https", CLIENT[4], port, host=host, query="/")
                return f"{outcome.verdict}: {outcome.detail}"

            assert await get(443, "www.example") == "answered: status 204"
            assert await get(446, CLIENT[4]) == "answered: status 204"
            assert "wrong: certificate: Hostname mismatch" in await get(443, "mail.example")
            assert "wrong: certificate: IP address mismatch" in await get(443, CLIENT[4])
            assert "wrong: certificate: " in await get(444, "www.example")
            assert "wrong: TLS: " in await get(445, "www.example")
        for server in running:
            server.close()
            await server.wait_closed()

    asyncio.run(main())
