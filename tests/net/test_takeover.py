"""`init` takes over from the real Shorewall, and from a script: theirs alone, both, ours alone.

                  ┌─ isp-a ── wan0 ┐
 client ── core ──┤                ├ host lan0 ── content
                  └─ isp-b ── wan1 ┘

Rules: what is to be removed, and in which order, is read from what `init` prints. Connections of
each kind are open all the while, and are asked at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ifdefault import config
from ifdefault.lab.node import Completed
from ifdefault.lab.world import World
from ifdefault.model.config import Config, OutgoingRule
from tests.net import answers, steps
from tests.net.conftest import LabWorld
from tests.net.kernelstate import differences, read_state
from tests.net.lines import lines

A, B, LAN, CLIENT = "203.0.113.10", "198.51.100.10", "192.168.1.10", "198.18.1.10"
CLIENT_2 = "198.18.2.10"
SHARED = Path("/usr/share/shorewall")
TABLES = "255\tlocal\n254\tmain\n253\tdefault\n"  # whatever this machine's file says
SHOREWALL = {
    "zones": "fw firewall\nnet ipv4\nloc ipv4\n",
    "interfaces": "?FORMAT 2\nnet wan0\nnet wan1\nloc lan0\n",
    "policy": "all all ACCEPT\n",
    "snat": "MASQUERADE 192.168.1.0/24 wan0\nMASQUERADE 192.168.1.0/24 wan1\n",
    "providers": """\
#NAME NUMBER MARK DUPLICATE INTERFACE GATEWAY OPTIONS
One   1      1    -         wan0      203.0.113.1  track,balance=3
two   2      2    -         wan1      198.51.100.1 track,balance=1
""",
    "rtrules": "-  192.0.2.0/24  two  1000\n192.168.1.10 -  two 11000\n",
    "mangle": "MARK(2) $FW 0.0.0.0/0 tcp 25,8000:8010\n",
}
SETTINGS = {
    "STARTUP_ENABLED": "Yes",
    "ROUTE_FILTER": "No",  # or there may be no providers
    "LOG_MARTIANS": "No",
    "IP_FORWARDING": "On",
    "DYNAMIC_BLACKLIST": "No",
    "RESTART": "reload",
    "AUTOMAKE": "No",
}
SCRIPT = """\
#!/bin/sh
IP=/sbin/ip
B=198.51.100.10
$IP route add 198.51.100.0/24 dev wan1 table two
$IP route add default via 198.51.100.1 dev wan1 table two
$IP rule add from $B table two prio 100
ip rule add to 192.0.2.0/24 ipproto tcp dport 25 lookup two pref 200 && logger laid
ip rule add from 192.168.1.0/24 table two prio 300
ip rule add from 203.0.113.10 table 7000 prio 400
"""


class Host:
    """A world's host with files of its own at these paths, in a mount namespace of each command."""

    def __init__(self, world: World, mounts: dict[str, str | dict[str, str]]) -> None:
        self.world = world
        self._places = {path: world.dir / path.replace("/", "_") for path in mounts}
        for path, content in mounts.items():
            here = self._places[path]
            if isinstance(content, str):
                here.write_text(content)
                continue
            here.mkdir()
            for name, text in content.items():
                (here / name).write_text(text)
        binds = (f"mount --bind {here} {path}" for path, here in self._places.items())
        self._own = " && ".join((*binds, 'exec "$@"'))

    def file(self, path: str) -> Path:
        for mounted, here in self._places.items():
            if path == mounted or path.startswith(f"{mounted}/"):
                return Path(f"{here}{path.removeprefix(mounted)}")
        raise AssertionError(f"{path} is none of its files")

    def run(self, argv: Sequence[str], *, check: bool = False) -> Completed:
        assert "systemctl" not in " ".join(argv), "it would be the machine's"
        if argv[0] == "ifdefault":
            argv = [*self.world.command, *argv[1:]]
        own = ["unshare", "--mount", "sh", "-c", self._own, "sh"]
        return self.world["host"].run([*own, *argv], check=check)

    def init(self) -> tuple[str, Config]:
        printed = self.run(["ifdefault", "init", "--force"], check=True).stdout
        return printed, config.read(self.world.config)


@contextmanager
def open_connections(world: World, lan: bool) -> Iterator[Callable[[str], None]]:
    """Ask all of them, and open new ones."""
    host, client, content = world["host"], world["client"], world["content"]
    with lines() as opened:
        held = {f"from the client to {to}": opened(client, host, to) for to in (A, B)}
        held |= {
            f"from the host to {to}": opened(host, client, to, port=7901)
            for to in (CLIENT, CLIENT_2)
        }
        if lan:
            held["from the LAN"] = opened(content, client, CLIENT, port=7902)

        def ask(when: str) -> None:
            silent = [name for name, line in held.items() if not line.works()]
            assert silent == [], f"after {when}"
            tallies = answers.ask(world, ["tcp", "udp-bound", "icmp"], [A, B], count=1)
            assert [tally for tally in tallies if not tally.ok] == [], f"after {when}"

        ask("the start")
        yield ask


def take_over(host: Host, printed: str, *, lan: bool) -> list[str]:
    """Step by step; what `check` says at the end."""
    world = host.world
    before = world.misrouted()
    with open_connections(world, lan) as ask:
        for step in steps.read(printed):
            for done in steps.perform(step, host.run, host.file):
                ask(done)
    assert world.misrouted() == before, world.refusals()
    return host.run(["ifdefault", "check"]).stderr.splitlines()


def test_shorewall(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.serve(world)
    conf = (SHARED / "configfiles/shorewall.conf").read_text()
    rows = (line.partition("=") for line in conf.splitlines())
    conf = "\n".join(f"{key}{eq}{SETTINGS.get(key, value)}" for key, eq, value in rows)
    files = SHOREWALL | {"shorewall.conf": conf}
    host = Host(
        world,
        {
            "/etc/shorewall": files,
            "/var/lib/shorewall": {},
            "/etc/iproute2/rt_tables": TABLES,
        },
    )
    untouched = read_state(world["host"])
    host.run(["shorewall", "start"], check=True)
    answers.assert_answered(world, ["tcp", "icmp"], [A, B], count=2)

    printed, written = host.init()
    assert [(u.name, u.interface, u.gateways, u.weight) for u in written.uplinks] == [
        ("one", "wan0", ("203.0.113.1",), 3),
        ("two", "wan1", ("198.51.100.1",), 1),
    ]
    assert (written.outgoing.mode, written.outgoing.sticky) == ("balance", True)
    assert written.outgoing.rules == (
        OutgoingRule(via=("two",), to=("192.0.2.0/24",)),
        OutgoingRule(via=("two",), transport="tcp", ports=((25, 25), (8000, 8010))),
    )
    assert "lookup 2 (Shorewall, /etc/shorewall/rtrules:2)\n    selects packets from 192" in printed
    assert "To take over from Shorewall without losing a connection:" in printed

    left = take_over(host, printed, lan=True)
    assert left == []
    rules = world["host"].run(["ip", "rule"]).stdout.splitlines()
    theirs = [rule.split(":\t")[1] for rule in rules if "proto 171" not in rule]
    assert theirs == [f"from all lookup {table}" for table in ("local", "main", "default")]
    host.run(["ifdefault", "down"], check=True)
    state = differences(untouched, read_state(world["host"]))
    assert [line for line in state if " via " in line or " dev " in line] == []


def test_script(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.serve(world)
    host = Host(
        world,
        {
            "/usr/local/sbin": {"two-providers": SCRIPT},
            "/etc/iproute2/rt_tables": TABLES + "102\ttwo\n",
        },
    )
    world["host"].ip("route del default via 198.51.100.1\n")  # the table alone has it
    untouched = read_state(world["host"])
    host.run(["sh", "-e", "/usr/local/sbin/two-providers"], check=True)
    printed, written = host.init()
    assert [(u.name, u.gateways) for u in written.uplinks] == [
        ("isp-a", ()),
        ("two", ("198.51.100.1",)),
    ]
    [rule] = written.outgoing.rules
    assert rule == OutgoingRule(("two",), ("192.0.2.0/24",), "tcp", ((25, 25),))
    assert "(a script, /usr/local/sbin/two-providers:8)\n    selects packets from 192" in printed
    assert "lookup 7000 (a script, /usr/local/sbin/two-providers:9)\n    has no effect" in printed

    left = take_over(host, printed, lan=False)
    [kept] = [line for line in left if "300" in line]
    assert left == [kept]
    assert kept.startswith("warning: ip rule pref 300 from 192.168.1.0/24 lookup 102: looks up")
    host.run("ip rule del pref 300".split(), check=True)
    again = host.run(["ifdefault", "init", "--print"]).stdout
    assert "table 102\n#     has a default route by an uplink, but no rule looks it up" in again
    assert "ip route flush table 102" in again
    host.run("ip route flush table 102".split(), check=True)
    assert host.run(["ifdefault", "check"]).stderr == ""
    host.run(["ifdefault", "down"], check=True)
    assert differences(untouched, read_state(world["host"])) == []
