"""What the world gets to hear of the host's names: answers of the embedded server, and the records
on another's server, by dynamic update.

Rules: what is published is built into a table and asked for, as a client asks. A server of updates
takes what comes while it can be reached; what was ours there is on disk before it is said.
"""

from __future__ import annotations

from ifdefault.daemon.controller.effects import Publish
from ifdefault.dns import client
from ifdefault.dns.answer import Responder
from ifdefault.dns.publish import names_in_zone, serve
from ifdefault.dns.table import Table
from ifdefault.dns.update import UpdateState, usable_ways
from tests.simulation import host
from tests.simulation.world import World

_CLIENT, _SECRET = "192.0.2.7", b"0123456789abcdef"


class Nameservers:
    """`answers` are the addresses that a client gets of a name; `records` are those on the other
    server."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answers: dict[str, tuple[str, ...]] = {}
        self.last: Publish | None = None
        self.records: dict[str, set[str]] = {}
        self.reachable = True  # the other server
        self._updates: dict[str, UpdateState] = {}
        self._life = 0

    def end(self) -> None:
        """The daemon has ended: its own server doesn't respond, the other does."""
        self.last = None
        self.answers.clear()
        self._updates.clear()
        self._life += 1

    def publish(self, publish: Publish) -> None:
        self.last = publish
        self._serve(publish)
        dns = publish.config.dns
        for update in dns.updates:
            for name in names_in_zone(dns, publish.published, update.zone):
                self._want(name.name, {a.address for a in name.addresses}, name.ttl)

    def _serve(self, publish: Publish) -> None:
        dns = publish.config.dns
        table = Table.build(serve(dns, publish.published, publish.candidates))
        server = Responder(table, secrets=[_SECRET])
        self.answers.clear()
        for name in publish.published:
            if name.name.endswith(host.ZONE):
                self.answers[name.name] = tuple(
                    address for kind in ("A", "AAAA") for address in _ask(server, name.name, kind)
                )

    # --- updates --------------------------------------------------------------------------

    def _want(self, name: str, addresses: set[str], ttl: int) -> None:
        disk, now = self.world.disk, self.world.clock.now
        if name not in self._updates:
            self._updates[name] = UpdateState(disk.names.get(name, ()))
            self._updates[name].outcome_unknown(now)
        update = self._updates[name]
        if update.want(now, addresses, ttl) or update.retry(now):  # there may be better ways now
            disk.names[name] = tuple(sorted(update.ours))
            self._later(name, update)

    def _later(self, name: str, update: UpdateState) -> None:
        clock, life = self.world.clock, self._life

        def go_on() -> None:
            if self._life == life and min(update.due_s, update.look_s) <= clock.now:
                self._go_on(name, update)

        wait_s = min(update.due_s, update.look_s) - clock.now
        clock.answer(max(wait_s, 0.0) + 0.01, go_on)

    def _go_on(self, name: str, update: UpdateState) -> None:
        now, records = self.world.clock.now, self.records.setdefault(name, set())
        if update.due_s > now:
            seen = frozenset(records) if self._hears() else None
            update.observed(now, seen, all_fit=seen == update.wanted)
        elif not self._hears():
            update.outcome_unknown(now)
            update.failed(now, 1)
        else:
            change = update.change()
            records -= set(change.remove)
            records |= set(change.add)
            update.accepted(now, change)
        self.world.disk.names[name] = tuple(sorted(update.ours))
        self._later(name, update)

    def _hears(self) -> bool:
        """Whether the best uplink reaches the other server."""
        ways = usable_ways(host.UPDATED_SERVER, self.last.ways) if self.last else ()
        return self.reachable and bool(ways) and not self.world.uplink(ways[0].uplink).dead(4)


def _ask(server: Responder, name: str, kind: str) -> tuple[str, ...]:
    asked = client.query(1, name, kind, recurse=False)
    said = server.udp(asked, _CLIENT, "", 0.0)
    answer = client.read_answer(said, asked) if said else None
    return answer.texts if answer else ()
