"""`apply`: what it does, what it undoes, and what it takes in when it runs again.

                 ┌─ isp-a ── wan0 ┐
client ── core ──┼─ isp-b ── wan1 ┼─ host
                 └─ isp-c ── wan2 ┘            (three)
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, cycle
from statistics import mean
from threading import Event
from time import perf_counter
from typing import TypeVar

import pytest

from ifdefault.config import read as read_config
from ifdefault.lab import ports, services
from ifdefault.lab.traffic import Tally, measure
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from ifdefault.model.config import Config
from ifdefault.model.errors import KernelError
from ifdefault.model.kernel import Operation
from ifdefault.model.mptcp import PutEndpoint
from tests.net.conftest import LabWorld
from tests.net.kernelstate import apply, differences, down, operations_left, read_state

T = TypeVar("T")

KINDS = ["tcp", "icmp", "rst", "udp-bound", "udp-pktinfo"]
STAYING = ["203.0.113.10", "2001:db8:a::10", "198.51.100.10", "2001:db8:b::10"]
REAPPLIES = 24
PACE_S, PAUSE_S = 0.01, 0.2  # a load, but not all that two cores can do


def test_apply_does_what_plan_showed_and_only_once(lab_world: LabWorld) -> None:
    world = lab_world("two")
    planned = world.ifdefault("plan", "--detailed-exitcode")
    assert planned.returncode == 2
    assert world.ifdefault("plan").returncode == 0
    told = json.loads(world.ifdefault("plan", "--json").stdout)
    assert told["operations"] == planned.stdout.splitlines()
    done = world.ifdefault("apply", check=True)
    assert done.stdout == planned.stdout
    performed = len(planned.stdout.splitlines())
    assert f"{performed} operations performed; 2 of 2 uplinks in use" in done.stderr
    state = read_state(world["host"])
    again = world.ifdefault("apply", check=True)
    assert again.stdout == ""
    assert "nothing to do" in again.stderr
    assert json.loads(world.ifdefault("apply", "--json").stdout)["operations"] == []
    assert differences(state, read_state(world["host"])) == []
    assert world.ifdefault("plan", "--detailed-exitcode").returncode == 0


# --- undo ---------------------------------------------------------------------------------


class Refused(KernelError):
    pass


def refusing_at(step: int) -> Callable[[Operation], None]:
    steps = count()

    def before(_: Operation) -> None:
        if next(steps) == step:
            raise Refused(f"refused at step {step}")

    return before


def changed(config: Config) -> Config:
    """The normal default moves, and every number does."""
    first, *others = config.uplinks
    host = replace(config.host, table_base=2000, rule_priority=4000, mark_mask=0x3F0000)
    return Config((replace(first, rank=5), *others), replace(host, interface_group=9))


@pytest.mark.parametrize("topology", ["two", "shared-address"])
@pytest.mark.parametrize("applied", [False, True])
def test_a_failure_is_undone_at_every_step(
    lab_world: LabWorld, topology: str, *, applied: bool
) -> None:
    world = lab_world(topology)
    config = read_config(world.config)
    wanted = config
    if applied:
        apply(world)
        wanted = changed(config)
    before = read_state(world["host"])
    for step in range(0, len(operations_left(world, wanted)), 4):
        with pytest.raises(KernelError, match=r"(?s)refused at step.*all changes were undone"):
            apply(world, wanted, refusing_at(step))
        assert differences(before, read_state(world["host"])) == [], f"failed at step {step}"
    if applied:
        assert operations_left(world, config) == ()


def test_an_interrupted_apply_is_undone(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    steps = count()

    def interrupt(_: Operation) -> None:
        if next(steps) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(world, before=interrupt)
    assert differences(before, read_state(world["host"])) == []


def test_what_the_kernel_refuses_is_named_and_undone(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    own = "2001:db8:a::10"
    world.config.write_text(f'[uplink.isp-a]\ninterface = "wan0"\ngateways = ["{own}"]\n')
    done = world.ifdefault("apply")
    assert done.returncode == 1
    refused, undone = done.stderr.splitlines()
    assert f"ip -6 route add default via {own} dev wan0" in refused
    assert "(EINVAL)" in refused
    assert undone == "ifdefault: all changes were undone"
    assert differences(before, read_state(world["host"])) == []


def test_what_mptcp_is_refused_prevents_nothing(lab_world: LabWorld) -> None:
    """Somebody else adds the endpoints at the same time."""
    world = lab_world("two")
    world.config.write_text(f"{world.topology.config}[mptcp]\nannounce = true\n")

    def forestall(operation: Operation) -> None:
        if isinstance(operation, PutEndpoint):
            command = ["ip", "mptcp", "endpoint", "add", operation.endpoint.address, "signal"]
            subprocess.run(command, check=True)

    apply(world, before=forestall)
    done = world.ifdefault("plan", "--detailed-exitcode")
    assert (done.returncode, done.stdout) == (0, "")
    listed = world["host"].run(["ip", "mptcp", "endpoint"]).stdout.splitlines()
    assert sorted(int(line.split()[2]) for line in listed) == [1, 2, 3, 4], "none is ours"


@pytest.mark.parametrize("going", ["link del wan1", "link set wan1 down"])
def test_an_interface_that_goes_in_mid_apply(lab_world: LabWorld, going: str) -> None:
    """It is planned again for those that are left, and the next apply finds its way."""
    world = lab_world("three")
    apply(world)
    wanted = changed(read_config(world.config))
    steps = count()

    def unplug(_: Operation) -> None:
        if next(steps) == 5:
            world["host"].ip(f"{going}\n")

    apply(world, wanted, unplug)
    assert operations_left(world, wanted) == ()
    tallies = measure(world["client"], ["icmp"], STAYING[:2], count=2)
    assert all(tally.ok for tally in tallies), tallies
    apply(world)
    assert operations_left(world) == ()


# --- changes that apply takes in ------------------------------------------------------------


def takes_in(world: World, *addresses: str) -> None:
    world.ifdefault("apply", check=True)
    assert world.ifdefault("plan", "--detailed-exitcode").returncode == 0
    tallies = measure(world["client"], ["icmp"], addresses, count=2)
    assert all(tally.ok for tally in tallies), tallies
    assert not any(world.misrouted().values())


def test_addresses_that_come_and_go(lab_world: LabWorld) -> None:
    world = lab_world("two")
    host = world["host"]
    takes_in(world, *STAYING)
    added = ["198.51.100.11", "2001:db8:b::11"]
    host.ip(f"address add {added[0]}/24 dev wan1\naddress add {added[1]}/48 dev wan1 nodad\n")
    takes_in(world, *STAYING, *added)
    # the source of the uplink's own default goes
    host.ip("address del 198.51.100.10/24 dev wan1\naddress del 2001:db8:b::10/48 dev wan1\n")
    # IPv4 takes the other address of the prefix along
    host.ip(f"address replace {added[0]}/24 dev wan1\n")
    host.ip("route replace default via 198.51.100.1 metric 100\n")
    takes_in(world, *STAYING[:2], *added)
    host.ip(f"address del {added[1]}/48 dev wan1\n")
    takes_in(world, *STAYING[:2], added[0])


def test_a_gateway_that_changes(lab_world: LabWorld) -> None:
    world = lab_world("two")
    takes_in(world, *STAYING)
    text = world.config.read_text()
    world.config.write_text(text[: text.index("gateways")])
    world["isp-b"].ip(
        "address del 198.51.100.1/24 dev cust0\naddress add 198.51.100.2/24 dev cust0\n"
        "address del 2001:db8:b::1/48 dev cust0\naddress add 2001:db8:b::2/48 dev cust0 nodad\n"
    )
    world["host"].ip(
        "route del default via 198.51.100.1\nroute add default via 198.51.100.2 metric 100\n"
        "route del default via 2001:db8:b::1\nroute add default via 2001:db8:b::2 metric 2048\n"
    )
    takes_in(world, *STAYING)


def test_a_link_that_goes_down_and_up(lab_world: LabWorld) -> None:
    world = lab_world("two")
    takes_in(world, *STAYING)
    world["host"].ip("link set wan0 down\n")
    world.ifdefault("apply", check=True)
    assert "isp-a      pending: interface wan0 is down" in world.ifdefault("status").stdout
    takes_in(world, *STAYING[2:])
    world["host"].ip("link set wan0 up\n")
    world["host"].configure()
    takes_in(world, *STAYING)


# --- under load -----------------------------------------------------------------------------


def variants(config: Config) -> Iterator[Config]:
    """For ever: the normal default moves by rank and by weight, the third uplink comes and goes."""
    a, b, c = config.uplinks
    yield from cycle(
        replace(config, uplinks=uplinks)
        for uplinks in (
            (replace(a, rank=1), b),
            (replace(a, weight=2), b, replace(c, weight=3)),
            (a, replace(b, weight=2)),
            (a, b, c),
        )
    )


@contextmanager
def meanwhile(call: Callable[[Event], T]) -> Iterator[Future[T]]:
    """Something runs beside a block, until it is told that the block is over."""
    over = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(call, over)
        finally:
            over.set()


def stream(world: World, target: str, over: Event) -> int:
    """One connection on which data goes out and comes back; how many blocks did."""
    with world["client"].enter():
        connection = socket.create_connection((target, ports.TCP_ECHO), timeout=PATIENCE_S)
    blocks = 0
    with connection, connection.makefile("rb") as incoming:
        while not over.wait(PACE_S):
            block = blocks.to_bytes(4) * 4096
            connection.sendall(block)
            assert incoming.read(len(block)) == block
            blocks += 1
    return blocks


def connect_on_and_on(world: World, over: Event) -> list[Tally]:
    tallies: list[Tally] = []
    while not over.wait(PAUSE_S):
        tallies += measure(
            world["client"], KINDS, STAYING, count=20, concurrency=1, timeout_s=PATIENCE_S
        )
    return tallies


def ping(world: World, target: str) -> subprocess.Popen[str]:
    """300 echo requests, 50 a second."""
    options = ["-q", "-i", "0.02", "-c", "300"]
    return world["client"].popen(["ping", *options, target], stdout=subprocess.PIPE)


def test_reapplied_under_load_nothing_is_lost(lab_world: LabWorld) -> None:
    world = lab_world("three")
    services.builtin(world["host"])
    config = read_config(world.config)
    apply(world)
    wanted = variants(config)
    took_s: list[float] = []
    with ExitStack() as stack:
        streams = [
            stack.enter_context(meanwhile(partial(stream, world, target))) for target in STAYING
        ]
        tallies = stack.enter_context(meanwhile(partial(connect_on_and_on, world)))
        pings = [ping(world, target) for target in STAYING]
        while len(took_s) < REAPPLIES or any(child.poll() is None for child in pings):
            start = perf_counter()
            assert apply(world, next(wanted)).operations
            took_s.append(perf_counter() - start)
        for _ in range(2):  # and as a user does
            host = "\n[host]\nsource_check = 'count'\n"
            text = world.config.read_text()
            world.config.write_text(text.replace(host, "") if host in text else text + host)
            assert "operations performed" in world.ifdefault("apply", check=True).stderr
    print(f"{len(took_s)} re-applies, {1000 * mean(took_s):.0f} ms each")
    for child in pings:
        said, _ = child.communicate(timeout=PATIENCE_S)
        assert " 0% packet loss" in said
    assert all(future.result() > REAPPLIES for future in streams)
    assert [tally for tally in tallies.result() if not tally.ok] == []
    assert not any(world.misrouted().values()), world.refusals()


READ_ONLY = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'


def test_read_only_sysctls(lab_world: LabWorld) -> None:
    """As in a container: what isn't required is left, and `check` says it."""
    world = lab_world("two")
    in_container = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *world.command]
    for command in ("check", "apply"):
        done = world["host"].run([*in_container, command])
        assert "warning: /proc/sys: is read-only; not set, and not required: net." in done.stderr
    world["host"].run([*in_container, "status"])
    assert "nothing to do" in world["host"].run([*in_container, "apply"]).stderr


def test_required_sysctls_that_are_read_only(lab_world: LabWorld) -> None:
    """Nothing is half-applied."""
    world = lab_world("shared-address")
    before = read_state(world["host"])
    in_container = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *world.command]
    for command in ("check", "apply"):
        done = world["host"].run([*in_container, command], check=False)
        assert done.returncode == 1
        assert "/proc/sys: is read-only, and net.ipv4.tcp_fwmark_accept=1" in done.stderr
    assert differences(before, read_state(world["host"])) == []
    apply(world)
    done = world["host"].run([*in_container, "down"])
    assert "warning: /proc/sys: is read-only; not restored: net." in done.stderr
    down(world)
    assert differences(before, read_state(world["host"])) == []
