"""What the engine has to monitor, much of it because the kernel sends no notification of it."""

from __future__ import annotations

from ifdefault.daemon.controller.effects import Effect, Watch
from ifdefault.daemon.controller.paths import Paths
from ifdefault.daemon.controller.state import State
from ifdefault.model.kernel import TABLE_MAIN, Facts
from ifdefault.plan.numbers import SHORTEST_LOCAL
from ifdefault.plan.prepare import Prepared
from ifdefault.plan.scope import tables_read

_ROUTED_MAX = 100


class Watcher:
    """Appends a Watch to `out` whenever it differs from the last one."""

    def __init__(self, out: list[Effect]) -> None:
        self._out = out
        self._last: Watch | None = None

    def update(self, prepared: Prepared, state: State, paths: Paths) -> None:
        facts, auto = prepared.observation.facts, state.config.host.udp_wildcard == "auto"
        interfaces = tuple(sorted({u.interface for u in prepared.uplinks}))
        ended = any(path not in ("up", "unproven") for path, _ in paths.states().values())
        tables = tuple(sorted(tables_read(state.config, facts)))
        watch = Watch(interfaces, tables, on_link=not_beyond(facts, interfaces), ended=ended)
        if not state.held:
            watch = Watch(
                interfaces,
                tables,
                sysctls=prepared.desired.sysctls,
                udp_servers=facts.wildcard_udp if auto else None,
                groups=prepared.observation.groups,
                runs=tuple(prepared.observation.state.runs),
                on_link=watch.on_link,
                ended=ended,
            )
        if watch != self._last:
            self._last = watch
            self._out.append(watch)


def not_beyond(facts: Facts, interfaces: tuple[str, ...]) -> tuple[str, ...]:
    """Prefixes on the host's own links, and those behind routers of its LANs; connections to them
    are no evidence for an uplink. (Of very many of the latter, some.)"""
    routes = [r for r in facts.routes if r.table == TABLE_MAIN and r.dst != "default" and r.hops]
    on_link = [r.dst for r in routes if not any(hop.gateway for hop in r.hops)]
    routed = [
        r.dst
        for r in routes
        if any(hop.gateway for hop in r.hops)
        and not any(hop.dev in interfaces for hop in r.hops)
        and int(r.dst.partition("/")[2] or 128) > SHORTEST_LOCAL[r.family]
    ]
    return (*on_link, *routed[:_ROUTED_MAX])
