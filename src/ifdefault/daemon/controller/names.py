"""What the DNS is to say, from moment to moment.

    decision, uplinks, states ──> publish (dns.publish) ──> Publish, if it says anything new

Rules: one decision feeds all. What an uplink offered stays known while it is away, over restarts as
well, so that a name whose uplinks are all gone keeps its last addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ifdefault.daemon.controller.effects import Effect, Log, Publish
from ifdefault.daemon.status import Named
from ifdefault.dns.candidate_address import candidate, public_addresses
from ifdefault.dns.publish import publish
from ifdefault.model.config import Config, Family
from ifdefault.model.dns import DISCOVER, CandidateAddresses, DnsConfig, Published
from ifdefault.model.health import Decision, Way
from ifdefault.model.kernel import Uplink

_TOLD = 3  # names that one turn tells of, each by itself


class Names:
    """Effects are appended to `out`."""

    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self.candidates: dict[str, CandidateAddresses] = {}  # by uplink, as they were last
        self._last: Publish | None = None
        self._since: dict[str, float] = {}  # by name
        self.problems: tuple[str, ...] = ()
        self.discovered: dict[tuple[str, Family], str] = {}  # public addresses that were found out

    @property
    def published(self) -> tuple[Published, ...]:
        return self._last.published if self._last else ()

    def follow(
        self,
        now: float,
        config: Config,
        uplinks: Sequence[Uplink],
        decision: Decision,
        degraded: Sequence[str],
        ways: tuple[Way, ...],
    ) -> None:
        """Publish what follows from this, if it is anything new."""
        if config.dns == DnsConfig() and self._last is None:
            return
        candidates = self._candidate_addresses(config, uplinks)
        published = publish(config.dns, candidates, decision, degraded)
        now_said = Publish(config, tuple(uplinks), candidates, published, ways)
        if now_said != self._last:
            self._tell(now, published)
            self._last = now_said
            self._out.append(now_said)

    def _candidate_addresses(
        self, config: Config, uplinks: Sequence[Uplink]
    ) -> tuple[CandidateAddresses, ...]:
        """What each uplink offers: its addresses, as the Internet sees them."""
        public = {each.name: each.public for each in config.uplinks}
        problems: list[str] = []
        before, self.candidates = self.candidates, {}
        for uplink in uplinks:
            name = uplink.name
            found = {key[1]: text for key, text in self.discovered.items() if key[0] == name}
            seen = public_addresses(uplink, public[name], found)
            offered = candidate(uplink, seen)
            problems += [
                f"uplink.{name}: the Internet can't reach {address}, so that no name leads"
                f' there: set public, to "{DISCOVER}" or to what it is seen as'
                for address in seen.values()
                if address and address not in offered.addresses
            ]
            if uplink.pending and name in before and not offered.addresses:
                offered = before[name]  # it is away; whether that counts is decided elsewhere
            self.candidates[name] = offered
        self.problems = tuple(problems)
        return tuple(self.candidates.values())

    def _tell(self, now: float, published: Iterable[Published]) -> None:
        """Tell what changed, and since when it is so."""
        before = {each.name: each for each in self.published}
        told: list[str] = []
        since: dict[str, float] = {}
        for each in published:
            was = before.get(each.name)
            since[each.name] = self._since[each.name] if was == each else now
            if was is not None and was != each and (text := _change(was, each)):
                told.append(f"{each.name}: {text}")
        self._since = since
        rest = len(told) - _TOLD
        self._out += [Log("dns", text) for text in told[:_TOLD]]
        if rest > 0:
            self._out.append(Log("dns", f"and {rest} more names likewise"))

    def status(self) -> tuple[Named, ...]:
        return tuple(
            Named(
                each.name,
                each.policy,
                each.ttl,
                tuple((record.uplink, record.address) for record in each.addresses),
                self._since[each.name],
            )
            for each in self.published
        )


def _change(was: Published, now: Published) -> str:
    """What became of the addresses, for people: "-203.0.113.10 (isp-a), TTL 30 -> 5"."""
    old = {record.address: record.uplink for record in was.addresses}
    new = {record.address: record.uplink for record in now.addresses}
    parts = [f"-{address} ({old[address]})" for address in old if address not in new]
    parts += [f"+{address} ({new[address]})" for address in new if address not in old]
    if was.ttl != now.ttl:
        parts.append(f"TTL {was.ttl} -> {now.ttl}")
    return ", ".join(parts)
