"""What a metered uplink carries returns to the free one, and only what that would carry.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host lan0 ── content
                └─ isp-b ── wan1 ┘   metered
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from ifdefault.lab import faults, ports, services
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from tests.net import watched
from tests.net.conftest import LabWorld
from tests.net.farend import A, B
from tests.net.watched import FAR, await_default, await_states, standing

OTHER: dict[Family, str] = {4: "198.18.2.10", 6: "2001:db8:f:2::10"}  # the client's, too
CONFIG = """\
[outgoing]
mode = "balance"  # TCP of the host by its mark, UDP by its source
masquerade = ["lan0"]
[[outgoing.rule]]
to = ["198.18.2.10", "2001:db8:f:2::10"]
via = ["isp-b", "isp-a"]
[health]
recover_s = 0.3
"""
_FAR = [(family, FAR[family]) for family in FAMILIES]
_BIND_TO_DEVICE = 25  # asm-generic/socket.h
_ECHO = """
exec 3<>"/dev/tcp/$1/$2"; echo connected
while read line; do echo "$line" >&3; read -t 5 -u 3 line || exit; echo "$line"; done
"""


def opened(
    node: Node,
    target: str,
    port: int = ports.TCP_ECHO,
    kind: int = socket.SOCK_STREAM,
    **options: str,
) -> socket.socket:
    """A connection to an echo server; `options`: device, source."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind)
        sock.settimeout(PATIENCE_S)
        if "device" in options:
            sock.setsockopt(socket.SOL_SOCKET, _BIND_TO_DEVICE, options["device"].encode())
        if "source" in options:
            sock.bind((options["source"], 0))
        sock.connect((target, port))
        return sock

    return node.python(make)


def is_alive(sock: socket.socket) -> bool:
    with suppress(OSError):
        sock.send(b"still there?")
        return sock.recv(64) == b"still there?"
    return False


@contextmanager
def command(world: World, family: Family) -> Iterator[subprocess.Popen[str]]:
    """One that `ifdefault exec` ties to the metered uplink."""
    shell = ["bash", "-c", _ECHO, "bash", FAR[family], str(ports.TCP_ECHO)]
    argv = [*world.command, "exec", "isp-b", "--", *shell]
    pipe = subprocess.PIPE
    with world["host"].popen(argv, stdin=pipe, stdout=pipe) as process:
        assert process.stdout
        assert process.stdout.readline() == "connected\n"
        yield process
        process.terminate()


def answers(process: subprocess.Popen[str]) -> bool:
    assert process.stdin
    assert process.stdout
    process.stdin.write("still there?\n")
    process.stdin.flush()
    return process.stdout.readline() == "still there?\n"


def explained(world: World, target: str) -> str:
    ends = f"{B[4]}:4321", f"{target}:{ports.TCP_ECHO}"
    done = world.ifdefault("explain", "tcp", *ends, "--json")
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    return str(found["returns"])


def returned(world: World) -> list[str]:
    return [text for text in watched.events(world, "ended") if "return to isp-a" in text]


def test_the_way_back(lab_world: LabWorld) -> None:
    world = lab_world("two")
    text = world.topology.config.replace('"wan1"', '"wan1"\nmetered = true\ngrace = "1s"')
    world.config.write_text(f"{text}\n{CONFIG}", encoding="utf-8")
    host, client, lan = (world[name] for name in ("host", "client", "content"))
    services.builtin(client)
    services.builtin(host)
    world.daemon()
    await_states(world, ["up"])
    eventually(lambda: not standing(world).graces, what="the first grace is over")
    with ExitStack() as stack:
        with faults.injected(world, "blackhole", "isp-a"):
            await_default(world, "wan1")
            moving = {
                f"{what} {family}": stack.enter_context(sock)
                for family, far in _FAR
                for what, sock in (
                    ("host", opened(host, far)),
                    ("UDP", opened(host, far, ports.UDP_BOUND, socket.SOCK_DGRAM)),
                    ("LAN", opened(lan, far)),
                )
            }
            staying = {
                f"{what} {family}": stack.enter_context(sock)
                for family, far in _FAR
                for what, sock in (
                    ("inbound", opened(client, B[family])),
                    ("device", opened(host, far, device="wan1")),
                    ("rule", opened(host, OTHER[family])),
                    ("LAN's rule", opened(lan, OTHER[family])),
                )
            }
            commands = {f: stack.enter_context(command(world, f)) for f in FAMILIES}
            assert {what: is_alive(sock) for what, sock in (moving | staying).items()} == (
                dict.fromkeys(moving | staying, True)
            )
            assert moving["host 4"].getsockname()[0] == B[4]
            assert explained(world, FAR[4]) == "it ends 1.0s after isp-a is usable again"
            assert explained(world, OTHER[4]) == "", "a rule of the config ties it"
        await_default(world, "wan0")
        eventually(lambda: len(returned(world)) == 2, what="connections return")
        assert not [text for text in watched.events(world, "ended") if "can't" in text]
        alive = {what: is_alive(sock) for what, sock in (moving | staying).items()}
        assert alive == dict.fromkeys(moving, False) | dict.fromkeys(staying, True)
        assert all(answers(commands[family]) for family in FAMILIES)
        after = {f: stack.enter_context(opened(host, FAR[f])) for f in FAMILIES}
        assert [after[f].getsockname()[0] for f in FAMILIES] == [A[f] for f in FAMILIES]
    assert not any(world.misrouted().values())
