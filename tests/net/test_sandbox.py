"""What the frontend and the DNS server can no longer do, and what they still can: tried in a
process that has entered the sandbox of each."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Prints what it is not confined by, and then each attempt that went another way than expected. An
# attempt that kills is made by a child.
TRY = """
import asyncio, contextlib, ctypes, mmap, os, resource, signal, socket, ssl, sys, threading
from ifdefault.frontend.client import tsig_key_file
from ifdefault.frontend.main import resolve
from ifdefault.ipc import landlock, privileges, sandbox
from ifdefault.ipc.syscalls import ARCHITECTURES

profile = getattr(sandbox, sys.argv[1])
user = privileges.possible(65534, 65534)
numbers = ARCHITECTURES[os.uname().machine].numbers
syscall = ctypes.CDLL(None, use_errno=True).syscall
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
abstract.bind("")
there, unix = abstract.getsockname(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
engine, abi = os.getpid(), landlock.version()

def call(name, *arguments):
    if syscall(numbers[name], *(ctypes.c_long(a) for a in arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)

for name in ("execve", "ptrace", "unshare", "mount", "bpf", "keyctl", "io_uring_setup", "setns",
             "process_vm_readv", "perf_event_open", "userfaultfd", "kexec_load", "init_module"):
    if (child := os.fork()) == 0:
        sandbox.enter(profile, *user)
        with contextlib.suppress(OSError):
            call(name, 0, 0, 0, 0, 0, 0)
        os._exit(0)
    if (status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) != -signal.SIGSYS:
        print(name, status)

if (child := os.fork()) != 0:  # its parent plays the engine
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(*sandbox.enter(profile, *user))

def option(sock, level, name, value=1):
    return lambda: sock.setsockopt(level, name, value)

def opened(family, kind, protocol=0):
    return lambda: socket.socket(family, kind, protocol).close()

refused = {
    "fork": os.fork,
    "another's signal": lambda: os.kill(engine, 0),
    "write": lambda: open("/tmp/ifdefault-sandbox", "w"),
    "read /proc": lambda: open("/proc/self/status"),
    "read /dev": lambda: open("/dev/null"),
    "mkdir": lambda: os.mkdir("/tmp/ifdefault-sandbox"),
    "W+X": lambda: mmap.mmap(-1, 4096, prot=7),
    "dumpable": lambda: call("prctl", 4, 1),
    "personality": lambda: call("personality", 0x40000),
    "IP_HDRINCL": option(raw, socket.IPPROTO_IP, socket.IP_HDRINCL),
    "ICMP_FILTER": option(raw, 255, 1, bytes(4)),
    "SO_MARK": option(udp, socket.SOL_SOCKET, socket.SO_MARK),
    "SO_BINDTODEVICE": option(udp, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"),
    "SO_DETACH_FILTER": option(raw, socket.SOL_SOCKET, 27),
    "IP_TRANSPARENT": option(udp, socket.IPPROTO_IP, socket.IP_TRANSPARENT),
    "bind": lambda: tcp.bind(("127.0.0.1", 0)),
    "raw": opened(socket.AF_INET, socket.SOCK_RAW, 1),
    "ping": opened(socket.AF_INET, socket.SOCK_DGRAM, 1),
    "packet": opened(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink": opened(socket.AF_NETLINK, socket.SOCK_RAW),
    "unix": opened(socket.AF_UNIX, socket.SOCK_STREAM),
    "memory": lambda: bytearray(1 << 30),
}
if abi >= 6:
    refused["abstract"] = lambda: unix.sendto(b"x", there)

def thread():
    runs = threading.Thread(target=int)
    runs.start()
    runs.join()

async def loop():
    await asyncio.to_thread(int)

permitted = {
    "loop": lambda: asyncio.run(loop()),
    "thread": thread,
    "files": lambda: [os.listdir("/etc"), open("/etc/passwd").read(1)],
}
if sys.argv[1] == "FRONTEND":
    permitted |= {
        "TLS": lambda: ssl.create_default_context().load_default_certs(),
        "names": lambda: [resolve("localhost"), resolve("127.0.0.1")],
        "interface of a name server": lambda: socket.if_nametoindex("lo"),
        "RECVERR": option(udp, socket.IPPROTO_IP, 11),
        "connect": lambda: {0: "", 101: "no route"}[udp.connect_ex(("127.0.0.1", 9))],
        "socket": opened(socket.AF_INET6, socket.SOCK_STREAM),
    }
else:
    refused |= {"socket": opened(socket.AF_INET, socket.SOCK_STREAM)}
    refused |= {"connect": lambda: tcp.connect(("127.0.0.1", 9))}
for what, attempt in refused.items():
    try:
        attempt()
    except (OSError, MemoryError):
        continue
    print(what, "was permitted")
for what, attempt in permitted.items():
    try:
        attempt()
    except BaseException as error:
        print(what, repr(error))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("inside", [[], ["unshare", "-Urn"]], ids=["here", "rootless"])
@pytest.mark.parametrize("profile", ["FRONTEND", "DNS_SERVER"])
def test_what_a_confined_process_can_do(profile: str, inside: list[str]) -> None:
    command = [*inside, sys.executable, "-c", TRY, profile]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")


WITHOUT = """
import errno, os, socket, sys
from ifdefault.ipc import landlock, privileges, sandbox, seccomp

def missing(number, text=""):
    def call(*_):
        raise OSError(number, text or os.strerror(number))
    return call

landlock.version = missing(errno.ENOSYS)
seccomp.install = missing(errno.EPERM)
print(*sandbox.enter(sandbox.FRONTEND, *privileges.possible(65534, 65534)), sep="; ")
print(*privileges.left_over(open("/proc/self/status").read(), privileges.KEEP))
"""


def test_a_host_that_can_neither_is_said_and_the_rest_stands() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    said = "Landlock (function not implemented); seccomp (operation not permitted)"
    assert (done.stdout, done.stderr) == (f"{said}\n\n", "")
