"""Everything else that happens: operators, other programs, kills, servers, resolvers.

Rules: processes of simulated time, each with a seed of its own. What others put into the kernel is
never ours to touch; what they take of ours we put back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from ifdefault.daemon.controller import events as e
from ifdefault.model.config import Config
from ifdefault.model.health import Forced
from ifdefault.model.kernel import OWN_TABLES, TABLE_MAIN, Hop, Route, Rule
from ifdefault.plan.diff import own_routes, own_rules
from tests.property.hosts import STATIC
from tests.simulation import host
from tests.simulation.clock import Process
from tests.simulation.daemon import WATCH_S, Daemon
from tests.simulation.lives import renumber
from tests.simulation.world import World

EVERY_S = {"operate": 500.0, "interfere": 500.0, "kill": 900.0, "trouble": 700.0}  # means
_FORCED: list[Forced] = ["up", "down", "drain", "auto", "auto", "auto", "auto"]
_ADDED_RULE = Rule(4, 1000, table=77, dst="10.77.0.0/16", protocol=STATIC)
_ADDED_ROUTES = (
    Route(4, 77, "10.77.0.0/16", hops=(Hop("lan0"),), protocol=STATIC),
    Route(4, TABLE_MAIN, "10.78.0.0/16", hops=(Hop("lan0", "192.168.1.9"),), protocol=STATIC),
)


class Operator:
    """Requests over the control socket."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world, self.daemon = world, daemon
        self._rng, self._timeouts = (Random(f"{world.seed} {n}") for n in ("operator", "timeouts"))
        self._last = 0

    def live(self) -> Process:
        rng = self._rng
        while True:
            yield 10.0 + rng.expovariate(1 / EVERY_S["operate"])
            what = rng.choice(("force", "force", "force", "reload", "confirm", "down", "exec"))
            self.world.count(f"operator: {what}")
            match what:
                case "force":
                    self._force()
                case "reload":
                    self.reload()
                case "confirm":
                    yield from self._try()
                case "down":
                    yield from self._down()
                case "exec":
                    yield from self._exec()

    def _ask(self, make: Callable[[int], e.Event]) -> int:
        self._last += 1
        self.daemon.ask(make(self._last), self._last)
        return self._last

    def _force(self) -> None:
        uplink = self._rng.choice(self.world.uplinks).name
        state = self._rng.choice(_FORCED)
        timeout_s = self._timeouts.choice((None, 1, 60)) if state == "drain" else None
        self._ask(lambda request: e.UplinkRequested(request, uplink, state, timeout_s))

    def reload(self) -> None:
        self._reload(host.draw_config(self._rng, self.world.uplinks))

    def _reload(self, config: Config, confirm_s: int | None = None) -> None:
        self.world.disk.config = config
        self._ask(lambda request: e.ReloadRequested(request, config, confirm_s))

    def _try(self) -> Process:
        """`apply --confirm`: confirmed, or undone."""
        before = self.world.disk.config
        self._reload(host.draw_config(self._rng, self.world.uplinks), confirm_s=10)
        yield self._rng.uniform(0.1, 8.0)
        if self._rng.random() < 0.5:
            self._ask(e.ConfirmRequested)
        else:
            self.world.disk.config = before

    def _down(self) -> Process:
        self._ask(e.DownRequested)
        yield self._rng.choice((0.5, 20.0))
        self._reload(self.world.disk.config)

    def _exec(self) -> Process:
        uplink, pid = self._rng.choice(self.world.uplinks).name, 1000 + self._last
        self._ask(lambda request: e.ExecRequested(request, pid, 1000, uplink))
        yield self._rng.uniform(1, 60)
        self.daemon.kernel.groups.pop(f"/ifdefault/{pid}", None)


class Stranger:
    """Another program that administers this host."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world, self.kernel, self.daemon = world, world.kernel, daemon
        self._rng = Random(f"{world.seed} stranger")

    def live(self) -> Process:
        rng = self._rng
        while True:
            yield 10.0 + rng.expovariate(1 / EVERY_S["interfere"])
            what = rng.choice(("rule", "route", "table", "sysctl", "all", "fight", "adds"))
            self.world.count(f"stranger: {what}")
            match what:
                case "fight":
                    yield from self._fight()
                case "adds":
                    yield from self._add()
                case "all":
                    for one in ("rule", "rule", "route", "route", "table"):
                        self._delete(one)
                case _:
                    self._delete(what)

    def _delete(self, what: str) -> None:
        kernel, rng, now = self.kernel, self._rng, self.world.clock.now
        facts = kernel.facts
        if what == "rule" and (rules := own_rules(facts)):
            kernel.drop_rule(now, rng.choice(rules))
        elif what == "route" and (routes := own_routes(facts)):
            kernel.drop_route(now, rng.choice(routes))
        elif what == "table":
            kernel.drop_table(now, rng.choice(OWN_TABLES))
        elif what == "sysctl" and (watched := self.daemon.watch.sysctls):
            name, value = rng.choice(watched)
            if name in dict(facts.sysctls):
                kernel.set_sysctl(now, name, "0" if value != "0" else "1")

    def _fight(self) -> Process:
        rules = own_rules(self.kernel.facts)
        if not rules:
            return
        rule = self._rng.choice(rules)
        for _ in range(self._rng.randrange(5, 25)):
            self.kernel.drop_rule(self.world.clock.now, rule)
            yield 0.5

    def _add(self) -> Process:
        clock, rng = self.world.clock, self._rng
        self.kernel.add_rule(clock.now, _ADDED_RULE)
        for route in _ADDED_ROUTES:
            self.kernel.add_route(clock.now, route)
        yield rng.uniform(1, 100)
        for route in _ADDED_ROUTES:
            self.kernel.drop_route(clock.now, route)
        self.kernel.drop_rule(clock.now, _ADDED_RULE)


def live_and_die(world: World, daemon: Daemon, operator: Operator) -> Process:
    """Kills at any moment, and links that vanish in the midst of operations."""
    rng = Random(f"{world.seed} kills")
    while True:
        yield 10.0 + rng.expovariate(1 / EVERY_S["kill"])
        what = rng.choice(("kill", "kill", "kill while it works", "link goes while it works"))
        world.count(what)
        if what == "kill":
            daemon.ambush = rng.randrange(5), daemon.kill
            continue
        operator.reload()
        if what == "kill while it works":
            daemon.ambush = rng.randrange(40), daemon.kill
        elif learned := [uplink for uplink in world.uplinks if uplink.learned]:
            moves = renumber(world, rng.choice(learned), rng)
            daemon.ambush = rng.randrange(12), partial(world.clock.start, moves)


def have_trouble(world: World, daemon: Daemon) -> Process:
    """Other temporary faults."""
    rng, clock = Random(f"{world.seed} trouble"), world.clock
    while True:
        yield 10.0 + rng.expovariate(1 / EVERY_S["trouble"])
        what = rng.choice(
            ("frontend", "lock", "unreadable", "resolver", "server", "slow host", "DNS server")
        )
        world.count(f"trouble: {what}")
        lasts_s = rng.uniform(0.1, 20.0)
        daemon.disturbed_s = clock.now
        match what:
            case "frontend":
                daemon.end_frontend()
            case "lock":
                world.kernel.locked_s = clock.now + lasts_s / 4
                yield lasts_s / 4
            case "unreadable":
                daemon.unreadable = True
                yield lasts_s
                daemon.unreadable = False
            case "resolver":
                world.resolves = False
                yield lasts_s
                world.resolves = True
            case "server":
                server = rng.choice(host.SERVERS)
                world.servers[server] = False
                yield lasts_s
                world.servers[server] = True
            case "slow host":
                daemon.slow_s = rng.uniform(0.01, 0.4)
                yield lasts_s
                daemon.slow_s = 0.0
            case _:
                daemon.names.reachable = False
                yield lasts_s
                daemon.names.reachable = True
        daemon.disturbed_s = clock.now


def watch_silent(daemon: Daemon) -> Process:
    while True:
        yield WATCH_S
        daemon.read_silent()


def see_traffic(world: World, daemon: Daemon) -> Process:
    while True:
        yield 1.0
        if daemon.controller:
            daemon.frontend.see_traffic()
