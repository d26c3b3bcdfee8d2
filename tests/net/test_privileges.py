"""What the frontend and hooks still may: nothing. Asked of /proc, and tried."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from ifdefault.ipc import privileges
from tests.net.conftest import LabWorld
from tests.net.test_frontend import talking

NOBODY = 65534

# What a process tries once it has given up its rights; says what succeeded.
TRY = """
import os, resource, socket, sys
from ifdefault.ipc import privileges

ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
ours.setsockopt(socket.SOL_SOCKET, 36, 0)  # SO_MARK
ours.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
uid, gid = privileges.possible(65534, 65534)
print(uid, gid)
privileges.drop(uid, gid, limits={resource.RLIMIT_NOFILE: 8192})
print(*privileges.left_over(open("/proc/self/status").read(), uid))

def port_53():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 53))

def rebind():
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"")

def become_root():
    os.setuid(0)
    os.close(os.open("/proc/1/mem", os.O_RDONLY))

def netlink():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        # RTM_DELLINK of index 1
        sock.send(bytes.fromhex("2000000011000500010000000000000000000000010000000000000000000000"))
        if code := -int.from_bytes(sock.recv(99)[16:20], sys.byteorder, signed=True):
            raise OSError(code, os.strerror(code))

for attempt in (
    lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
    lambda: ours.setsockopt(socket.SOL_SOCKET, 36, 1),
    lambda: held.setsockopt(socket.SOL_SOCKET, 36, 1),
    rebind,
    port_53,
    netlink,
    lambda: os.chroot("/"),
    become_root,
    lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)),
):
    try:
        attempt()
    except PermissionError:
        continue
    except ValueError:  # Python's for setrlimit
        continue
    print(attempt)
held.close()
"""


def test_the_face_has_no_right_left(lab_world: LabWorld) -> None:
    async def main() -> None:
        async with talking(lab_world("one")) as talk:
            talk.bind(1, 4)
            await talk.settled()
            text = Path(f"/proc/{talk.frontend.pid}/status").read_text()
            told = {k: v.split() for k, _, v in (row.partition(":") for row in text.splitlines())}
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert told[name] == ["0" * 16], name
            assert told["NoNewPrivs"] == ["1"]
            if privileges.possible(NOBODY, NOBODY) != (privileges.KEEP, privileges.KEEP):
                assert "0" not in told["Uid"] + told["Gid"]
                assert not told["Groups"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "inside", [[], ["unshare", "--user", "--map-root-user", "--net"]], ids=["here", "rootless"]
)
def test_what_it_can_no_longer_do(inside: list[str]) -> None:
    """In a user namespace that has only root it stays root, who may nothing."""
    command = [*inside, sys.executable, "-c", TRY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    user = "-1 -1" if inside else "{} {}".format(*privileges.possible(NOBODY, NOBODY))
    assert (done.stdout, done.stderr) == (f"{user}\n\n", "")


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without rights."""
    head = [sys.executable, "-m", "ifdefault.ipc.privileges"]
    user = map(str, privileges.possible(NOBODY, NOBODY))
    return subprocess.run(
        [*head, *user, *command], capture_output=True, text=True, timeout=60, check=False, env=env
    )


def test_a_command_without_rights() -> None:
    script = 'grep -E "^(Cap|NoNewPrivs)" /proc/self/status; id -u; env; exit 7'
    env = {"PATH": "/usr/bin:/bin", "IFDEFAULT_EVENT": "up", "SECRET": "x"}
    done = run("/bin/sh", "-c", script, env=env)
    assert done.returncode == 7, done.stderr
    words = done.stdout.split()
    assert words.count("0" * 16) == 5
    assert words[words.index("NoNewPrivs:") + 1] == "1"
    assert f"{max(privileges.possible(NOBODY, NOBODY)[0], 0)}" in words
    assert "IFDEFAULT_EVENT=up" in words
    assert "SECRET=x" not in words


def test_a_command_that_isnt_there() -> None:
    done = run("/no/such")
    assert (done.returncode, done.stderr) == (126, "/no/such: no such file or directory\n")
