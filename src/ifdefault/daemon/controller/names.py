"""The addresses that the DNS has to publish.

    decision, uplinks, states ──> publish (dns.publish) ──> Publish, if anything changed

Rules: DNS and kernel follow the same decision. The addresses of an uplink that isn't ready are
remembered, across restarts too, so that a name whose uplinks are all missing keeps its last
addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ifdefault.daemon.controller.effects import Effect, Log, Publish
from ifdefault.daemon.controller.events import Started
from ifdefault.dns.candidate_address import candidate
from ifdefault.dns.publish import publish
from ifdefault.model.config import Config, Family
from ifdefault.model.dns import DISCOVER, CandidateAddresses, DnsConfig, Published
from ifdefault.model.health import Decision, Way
from ifdefault.model.kernel import Uplink
from ifdefault.model.public_address import public_addresses
from ifdefault.model.report import Named

_LOGGED = 3  # names logged one by one in a turn; the rest are counted


class Names:
    """Effects are appended to `out`."""

    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self.candidates: dict[str, CandidateAddresses] = {}  # by uplink
        self._last: Publish | None = None
        self._since: dict[str, float] = {}  # by name
        self.problems: tuple[str, ...] = ()
        self.discovered: dict[tuple[str, Family], str] = {}  # public addresses

    def start(self, started: Started) -> None:
        """Begin with what an earlier engine saved."""
        self.candidates = {c.uplink: c for c in started.candidates}
        self.discovered = {(p.uplink, p.family): p.address for p in started.public}

    @property
    def published(self) -> tuple[Published, ...]:
        return self._last.published if self._last else ()

    def update(
        self,
        now: float,
        config: Config,
        uplinks: Sequence[Uplink],
        decision: Decision,
        degraded: Sequence[str],
        ways: tuple[Way, ...],
    ) -> None:
        """Publish the names' addresses, if anything changed."""
        if config.dns == DnsConfig() and self._last is None:
            return
        candidates = self._candidate_addresses(config, uplinks)
        published = publish(config.dns, candidates, decision, degraded)
        effect = Publish(config, tuple(uplinks), candidates, published, ways)
        if effect != self._last:
            self._log(now, published)
            self._last = effect
            self._out.append(effect)

    def _candidate_addresses(
        self, config: Config, uplinks: Sequence[Uplink]
    ) -> tuple[CandidateAddresses, ...]:
        """Each uplink's addresses as the Internet sees them."""
        public = {uplink.name: uplink.public for uplink in config.uplinks}
        problems: list[str] = []
        before, self.candidates = self.candidates, {}
        for uplink in uplinks:
            name = uplink.name
            discovered = {key[1]: text for key, text in self.discovered.items() if key[0] == name}
            seen = public_addresses(uplink, public[name], discovered)
            offered = candidate(uplink, seen)
            problems += [
                f"uplink.{name}: {address} is not reachable from the Internet and not published:"
                f' set public to the public address or to "{DISCOVER}"'
                for address in seen.values()
                if address and address not in offered.addresses
            ]
            if uplink.pending and name in before and not offered.addresses:
                offered = before[name]  # not ready; whether it is published is decided elsewhere
            self.candidates[name] = offered
        self.problems = tuple(problems)
        return tuple(self.candidates.values())

    def _log(self, now: float, published: Iterable[Published]) -> None:
        """Log what changed, and remember since when."""
        before = {name.name: name for name in self.published}
        changes: list[str] = []
        since: dict[str, float] = {}
        for name in published:
            was = before.get(name.name)
            same = was is not None and was.unweighted == name.unweighted
            since[name.name] = self._since[name.name] if same else now
            if was is not None and was != name and (text := _change(was, name)):
                changes.append(f"{name.name}: {text}")
        self._since = since
        rest = len(changes) - _LOGGED
        self._out += [Log("dns", text) for text in changes[:_LOGGED]]
        if rest > 0:
            self._out.append(Log("dns", f"and {rest} more names changed"))

    def status(self) -> tuple[Named, ...]:
        return tuple(
            Named(
                name.name,
                name.policy,
                name.ttl,
                tuple((record.uplink, record.address) for record in name.addresses),
                self._since[name.name],
            )
            for name in self.published
        )


def _change(was: Published, now: Published) -> str:
    """What changed, for the log: "-203.0.113.10 (isp-a), TTL 30 -> 5"."""
    old = {record.address: record.uplink for record in was.addresses}
    new = {record.address: record.uplink for record in now.addresses}
    parts = [f"-{address} ({old[address]})" for address in old if address not in new]
    parts += [f"+{address} ({new[address]})" for address in new if address not in old]
    if was.ttl != now.ttl:
        parts.append(f"TTL {was.ttl} -> {now.ttl}")
    return ", ".join(parts)
