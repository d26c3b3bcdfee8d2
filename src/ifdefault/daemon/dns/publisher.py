"""What the DNS is to say, from moment to moment, and the outlets that say it.

    decision, uplinks, states ──> publish ──> nameserver (embedded), updates (RFC 2136), programs

Rules: one decision feeds all; an outlet that fails holds up no other. What an uplink offered stays
known while it is away, so that a name whose uplinks are all gone keeps its last addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.paths import Way
from ifdefault.daemon.status import DnsStatus, Named, OutletStatus
from ifdefault.dns.candidate_address import offer, seen_as
from ifdefault.dns.publish import publish
from ifdefault.ipc.messages import Served
from ifdefault.model.config import Config, Family
from ifdefault.model.dns import DISCOVER, CandidateAddresses, DnsConfig, Published
from ifdefault.model.health import Decision, Health
from ifdefault.model.kernel import Uplink

_TOLD = 3  # names that one event is told of, each by itself


class Outlet(Protocol):
    """A way out. It takes what is to be said and sees to it, in its own time."""

    def take(
        self,
        now: float,
        config: Config,
        uplinks: Sequence[Uplink],
        offers: Sequence[CandidateAddresses],
        published: Sequence[Published],
        ways: Sequence[Way],
    ) -> None:
        """Called whenever anything of it may have changed, so mostly nothing has."""

    def frontend_started(self) -> None:
        """A new frontend is there, which knows nothing."""

    def frontend_ended(self) -> None:
        """It is gone, with all that it had."""

    def standings(self) -> Iterable[OutletStatus]:
        """How each place stands."""

    async def close(self) -> None:
        """End what is under way."""


class Publisher:
    def __init__(self, event_log: EventLog, outlets: Sequence[Outlet]) -> None:
        self._event_log = event_log
        self._outlets = tuple(outlets)
        self._offers: dict[str, CandidateAddresses] = {}
        self._published: tuple[Published, ...] = ()
        self._since: dict[str, float] = {}  # by name
        self._problems: tuple[str, ...] = ()
        self.discovered: dict[tuple[str, Family], str] = {}  # public addresses that were found out
        self._queries: dict[str, int] = {}

    def take(
        self,
        now: float,
        config: Config,
        uplinks: Sequence[Uplink],
        decision: Decision,
        health: Iterable[Health],
        ways: Sequence[Way],
    ) -> None:
        """Publish what follows from this."""
        offers = self._offer(config, uplinks)
        doubted = {path.uplink for path in health if path.state == "degraded"}
        published = publish(config.dns, offers, decision, doubted)
        self._note(now, published)
        self._published = published
        for outlet in self._outlets:
            outlet.take(now, config, uplinks, offers, published, ways)

    def frontend_started(self) -> None:
        for outlet in self._outlets:
            outlet.frontend_started()

    def frontend_ended(self) -> None:
        for outlet in self._outlets:
            outlet.frontend_ended()

    def hear(self, served: Served) -> None:
        """What the embedded server did."""
        for uplink, queries in served.queries:
            self._queries[uplink] = self._queries.get(uplink, 0) + queries
        for event in served.events:
            self._event_log.note("dns", event)

    async def close(self) -> None:
        for outlet in self._outlets:
            await outlet.close()

    # --- what uplinks offer ---------------------------------------------------------------

    def _offer(self, config: Config, uplinks: Sequence[Uplink]) -> tuple[CandidateAddresses, ...]:
        if config.dns == DnsConfig():
            return ()
        public = {each.name: each.public for each in config.uplinks}
        problems: list[str] = []
        before, self._offers = self._offers, {}
        for uplink in uplinks:
            name = uplink.name
            found = {key[1]: text for key, text in self.discovered.items() if key[0] == name}
            seen = seen_as(uplink, public[name], found)
            offered = offer(uplink, seen)
            problems += [
                f"uplink.{name}: the Internet can't reach {address}, so that no name leads"
                f' there: set public, to "{DISCOVER}" or to what it is seen as'
                for address in seen.values()
                if address and address not in offered.addresses
            ]
            if uplink.pending and name in before and not offered.addresses:
                offered = before[name]  # it is away; whether that counts is decided elsewhere
            self._offers[name] = offered
        self._problems = tuple(problems)
        return tuple(self._offers.values())

    # --- told -----------------------------------------------------------------------------

    def _note(self, now: float, published: Sequence[Published]) -> None:
        """Tell what changed, and since when it is so."""
        before = {each.name: each for each in self._published}
        told: list[str] = []
        for each in published:
            was = before.get(each.name)
            if was == each:
                continue
            self._since[each.name] = now
            if was is not None and (text := _change(was, each)):
                told.append(f"{each.name}: {text}")
        self._since = {each.name: self._since[each.name] for each in published}
        rest = len(told) - _TOLD
        for text in told[:_TOLD]:
            self._event_log.note("dns", text)
        if rest > 0:
            self._event_log.note("dns", f"and {rest} more names likewise")

    def standing(self, *, problems: Iterable[str] = ()) -> DnsStatus:
        """How it all stands; `problems` are others' that belong to it."""
        return DnsStatus(
            tuple(
                Named(
                    each.name,
                    each.policy,
                    each.ttl,
                    tuple((handed.uplink, handed.address) for handed in each.addresses),
                    self._since[each.name],
                )
                for each in self._published
            ),
            tuple(standing for outlet in self._outlets for standing in outlet.standings()),
            (*self._problems, *problems),
            tuple(sorted(self._queries.items())),
        )


def _change(was: Published, now: Published) -> str:
    """What became of the addresses, for people: "-203.0.113.10 (isp-a), TTL 30 -> 5"."""
    old = {handed.address: handed.uplink for handed in was.addresses}
    new = {handed.address: handed.uplink for handed in now.addresses}
    parts = [f"-{address} ({old[address]})" for address in old if address not in new]
    parts += [f"+{address} ({new[address]})" for address in new if address not in old]
    if was.ttl != now.ttl:
        parts.append(f"TTL {was.ttl} -> {now.ttl}")
    return ", ".join(parts)
