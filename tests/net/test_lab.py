"""`ifdefault lab` and `ifdefault demo` as a user runs them: by root, and by nobody.

         ┌─ isp-a ── wan0 ┐
client ──┤                ├ host
         └─ isp-b ── wan1 ┘

Every world here has a name of its own: others' stay as they are.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pydantic
import pytest

import ifdefault
from ifdefault.lab import netns, registry
from ifdefault.lab.waiting import eventually

Completed = subprocess.CompletedProcess[str]
Program = Callable[..., Completed]

NOBODY = 65534
PROGRAM = ("-m", "ifdefault")
OWN = (sys.executable, *PROGRAM)
_NEEDS = ("click", "pydantic", "pydantic_core", "annotated_types", "typing_inspection")
_TIMEOUT_S = 60.0


def run(*arguments: str, check: bool = True, stdin: str = "") -> Completed:
    """Run the program; its output is read to the end, as by a pipe."""
    return _run([*OWN, *arguments], dict(os.environ), check=check, stdin=stdin)


def _run(command: list[str], env: dict[str, str], *, check: bool, stdin: str) -> Completed:
    done = subprocess.run(
        command, capture_output=True, text=True, input=stdin, timeout=_TIMEOUT_S, env=env, cwd="/"
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture
def name() -> Iterator[str]:
    """A world's name; whatever a test leaves of it is taken away."""
    name = f"t{secrets.token_hex(2)}"
    yield name
    if name in registry.names():
        run("lab", "down", name)


def worlds(program: Program) -> dict[str, dict[str, object]]:
    return {w["world"]: w for w in json.loads(program("lab", "status", "--json").stdout)}


def assert_apply_helps(program: Program, own: Sequence[str], name: str) -> None:
    """A whole visit: look around in a world, apply, see the second uplink answer."""

    def inside(node: str, *command: str, check: bool = True) -> Completed:
        return program("lab", "exec", "--world", name, node, "--", *command, check=check)

    pings = [["ping", "-n", "-c", "1", "-W", "1", a] for a in ("198.51.100.10", "2001:db8:b::10")]
    assert all(inside("client", *ping, check=False).returncode for ping in pings)
    refused = worlds(program)[name]["misrouted"]
    assert isinstance(refused, dict)
    assert refused["isp-a"] > 0
    inside("host", *own, "apply")
    assert not any(inside("client", *ping).returncode for ping in pings)
    assert worlds(program)[name]["misrouted"] == refused


def test_list_names_what_up_takes() -> None:
    told = json.loads(run("lab", "list", "--json").stdout)
    assert {"two", "three", "v6only", "shared-lan", "vpn"} <= told.keys()
    text = run("lab", "list").stdout
    assert all(name in text and title in text for name, title in told.items())
    wrong = run("lab", "up", "tow", check=False)
    assert wrong.returncode == 2
    assert 'unknown topology "tow"; use one of' in wrong.stderr


def test_a_visit_to_a_world(name: str) -> None:
    assert f"world {name}" in run("lab", "up", "two", "--name", name).stdout
    assert_apply_helps(run, OWN, name)
    told = run(
        "lab",
        "shell",
        "--world",
        name,
        "host",
        stdin="ip -br link show wan1; exit 3\n",
        check=False,
    )
    assert told.returncode == 3
    assert "wan1@" in told.stdout
    run("lab", "fault", "--world", name, "carrier", "isp-b")
    link = ("lab", "exec", "--world", name, "host", "--", "ip", "link", "show", "wan1")
    eventually(lambda: "NO-CARRIER" in run(*link).stdout, what="no carrier")
    run("lab", "fault", "--world", name, "carrier", "isp-b", "--undo")
    eventually(lambda: "NO-CARRIER" not in run(*link).stdout, what="a carrier")
    again = run("lab", "up", "two", "--name", name, check=False)
    assert f'world "{name}" exists already' in again.stderr
    assert f"world {name} removed" in run("lab", "down", name).stdout
    assert_gone(name)


def assert_faults_come_and_go(program: Program, name: str) -> None:
    """By commands alone: nobody is there in between but the world and its processes."""
    own = ("lab", "fault", "--world", name)
    told = program(*own, "blackhole", "isp-a").stdout
    assert told.startswith("isp-a: nothing is forwarded;")
    program(*own, "bursts", "isp-a", "--amount", "50", "--every", "2.5")
    assert worlds(program)[name]["faults"] == {"isp-a": ["blackhole", "bursts"]}
    assert "isp-a: faults blackhole, bursts\n" in program("lab", "status").stdout

    def answers() -> bool:
        ping = ("ping", "-nc1", "-W1", "1.1.1.1")
        command = ("lab", "exec", "--world", name, "host", "--", *ping)
        return program(*command, check=False).returncode == 0

    assert not answers()
    for fault in ("blackhole", "bursts"):
        assert f"{fault} ended" in program(*own, fault, "isp-a", "--undo").stdout
    assert worlds(program)[name]["faults"] == {}
    assert answers()
    wrong = program(*own, "loss", "isp-a", "--amount", "100", check=False)
    assert 'amount 100 of "loss" is not valid; use 1 to 99 (percent)' in wrong.stderr


def test_faults_as_commands(name: str) -> None:
    run("lab", "up", "one", "--name", name)
    assert_faults_come_and_go(run, name)


@pytest.mark.parametrize("topology", ["p2p", "v6only"])
def test_who_pipes_lab_up_need_not_wait_for_its_processes(name: str, topology: str) -> None:
    """Wires, radvd and servers outlive `lab up`, and keep none of its output open."""
    run("lab", "up", topology, "--name", name)
    run("lab", "down", name)
    assert_gone(name)


def test_a_world_for_ones_own_config(name: str, tmp_path: Path) -> None:
    config = tmp_path / "ifdefault.toml"
    config.write_text("""
[uplink.cable]
interface = "enp1s0"
addresses = ["203.0.113.77"]
gateways = ["203.0.113.65"]

[uplink.fibre]
interface = "enp2s0"

[[dns.name]]
name = "www.example.net"

[dns.server]
zones = ["www.example.net"]

[health]
probes = ["dns://192.0.2.53/example.net"]
""")
    told = run("lab", "up", "--config", str(config), "--name", name).stdout
    assert "cable" in told
    servers = ("ns-cable.www.example.net", "ns-fibre.www.example.net")
    assert f"www.example.net is delegated to {' '.join(servers)}; a resolver is 198.18.0.1" in told
    dig = ("lab", "exec", "--world", name, "client", "--", "dig")
    assert "203.0.113.77\n" in run(*dig, "@198.18.0.1", "static.example.net").stdout
    told = run(*dig, "+norecurse", "@198.18.0.54", "www.example.net").stdout
    assert all(f"NS\t{server}." in told for server in servers)
    assert worlds(run)[name]["misrouted"] == {"cable": 0, "fibre": 0}
    host = ("lab", "exec", "--world", name, "host", "--")
    assert "status: REFUSED" in run(*host, "dig", "@192.0.2.53", "example.net").stdout
    run(*host, *OWN, "apply")
    assert json.loads(run(*host, *OWN, "status", "--json").stdout)["holds"]
    client = ("lab", "exec", "--world", name, "client", "--", "ping", "-nc1", "-W5")
    addresses = run(*host, "ip", "-br", "address", "show", "enp2s0").stdout.split()[2:]
    fibre = [text.partition("/")[0] for text in addresses if not text.startswith("fe80")]
    assert len(fibre) == 2
    for address in ("203.0.113.77", *fibre):
        run(*client, address)


def assert_gone(name: str) -> None:
    assert name not in registry.names()
    assert not (registry.root() / name).exists()
    assert not list(netns.RUN.glob(f"ifd-{name}-*"))


def test_down_cleans_up_after_a_kill(name: str) -> None:
    """At whatever point `lab up` ended, `lab down` finds what it made."""
    up = subprocess.Popen([*OWN, "lab", "up", "containers", "--name", name])
    eventually(lambda: list(netns.RUN.glob(f"ifd-{name}-*")), what="a namespace")
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert name in worlds(run)
    run("lab", "down", name)
    assert_gone(name)


# --- without root ---------------------------------------------------------------------------


class Nobody:
    """The program as a user without any right runs it, from a copy that he may read."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = _readable_python()
        package = Path(ifdefault.__file__).parent
        shutil.copytree(package, home / "lib" / "ifdefault", ignore=_no_caches)
        site = Path(pydantic.__file__).parents[1]
        for part in _NEEDS:
            shutil.copytree(site / part, home / "lib" / part, ignore=_no_caches)
        shutil.copy(site / "typing_extensions.py", home / "lib")
        (home / "tmp").mkdir()
        os.chown(home / "tmp", NOBODY, NOBODY)

    def __call__(self, *arguments: str, check: bool = True, stdin: str = "") -> Completed:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.home / "lib"),
            "PYTHONPYCACHEPREFIX": str(self.home / "tmp/pycache"),
            "TMPDIR": str(self.home / "tmp"),  # where his worlds are written down
        }
        command = [*drop, self.python, *PROGRAM, *arguments]
        return _run(command, env, check=check, stdin=stdin)


def _no_caches(_: str, names: list[str]) -> set[str]:
    return {"__pycache__"} & set(names)


def _readable_python() -> str:
    """This interpreter if everybody may run it, else the system's of the same version."""
    real = Path(sys.executable).resolve()
    if all(place.stat().st_mode & 0o005 == 0o005 for place in (real, *real.parents)):
        return str(real)
    version = "python{}.{}".format(*sys.version_info)
    found = shutil.which(version, path="/usr/local/bin:/usr/bin:/bin")
    assert found, f"{real} is root's alone, and {version} isn't installed for everybody"
    return found


@pytest.fixture
def nobody() -> Iterator[Nobody]:
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        yield Nobody(Path(home))


def without_root(nobody: Nobody) -> None:
    nobody("lab", "up", "two", "--name", "mine", "--dns")
    try:
        assert "mine" not in registry.names()
        assert_apply_helps(nobody, (nobody.python, *PROGRAM), "mine")
        assert_faults_come_and_go(nobody, "mine")
        dig = ("lab", "exec", "client", "--", "dig", "+short", "@198.18.0.1", "static.example")
        assert nobody(*dig).stdout.split()[0] in ("203.0.113.10", "198.51.100.10")
    finally:
        nobody("lab", "down", "mine")
    assert nobody("lab", "status").stdout == "no world is up\n"
    left = nobody.home / "tmp" / f"ifdefault-lab-{NOBODY}"
    assert not list(left.iterdir())


if registry.OUTER_UID not in os.environ:  # else all tests here run in a user namespace already

    def test_all_of_it_without_root(nobody: Nobody) -> None:
        without_root(nobody)


# --- the demo -------------------------------------------------------------------------------


def test_the_demo_shows_what_hung_answered() -> None:
    done = run("demo", "--json")
    told = json.loads(done.stdout)
    assert told["ok"]
    before = [row for row in told["before"] if row["uplink"] == "isp-b"]
    assert {row["family"] for row in before} == {4, 6}
    assert all(row["answered"] == 0 for row in before)
    # naive sockets, and caddy's is one, answer from the other uplink's address instead
    misrouted = {row["kind"] for row in before if row["misrouted"]}
    assert misrouted >= {"tcp", "http", "udp-bound", "udp-pktinfo", "icmp", "rst"}
    assert {row["uplink"] for row in told["after"]} == {"isp-a", "isp-b"}
    assert all(row["answered"] == row["tried"] and not row["misrouted"] for row in told["after"])
    assert told["misrouted_after"] == 0
    static, ours = told["outage"]["static"], told["outage"]["ours"]
    assert 0 < ours["failed"] < static["failed"]
    assert ours["last_failed_s"] < static["last_failed_s"]
    assert ours["return_s"] > 0
    said = " ".join(text for _, _, text in told["outage"]["events"])
    assert "isp-a IPv4: up -> down" in said
    assert "www.example: -203.0.113.10 (isp-a)" in said
