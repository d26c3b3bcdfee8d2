"""What the engine has to monitor, much of it because the kernel sends no notification of it."""

from __future__ import annotations

from ifdefault.daemon.controller.effects import Effect, Watch
from ifdefault.daemon.controller.state import State
from ifdefault.model.kernel import TABLE_MAIN, Facts
from ifdefault.plan.prepare import Prepared


class Watcher:
    """Appends a Watch to `out` whenever it differs from the last one."""

    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self._last: Watch | None = None

    def update(self, prepared: Prepared, state: State) -> None:
        facts, auto = prepared.observation.facts, state.config.host.udp_wildcard == "auto"
        interfaces = tuple(sorted({u.interface for u in prepared.uplinks}))
        watch = Watch(interfaces, on_link=_on_link(facts))
        if not state.held:
            watch = Watch(
                interfaces,
                sysctls=prepared.desired.sysctls,
                udp_servers=facts.wildcard_udp if auto else None,
                groups=prepared.observation.groups,
                runs=tuple(prepared.observation.state.runs),
                on_link=watch.on_link,
            )
        if watch != self._last:
            self._last = watch
            self._out.append(watch)


def _on_link(facts: Facts) -> tuple[str, ...]:
    """Prefixes on the host's own links; connections to them are no evidence for an uplink."""
    return tuple(
        route.dst
        for route in facts.routes
        if route.table == TABLE_MAIN
        and route.dst != "default"
        and route.hops
        and not any(hop.gateway for hop in route.hops)
    )
