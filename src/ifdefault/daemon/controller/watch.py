"""What the engine has to monitor, much of it because the kernel sends no notification of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ifdefault.daemon.controller.effects import Effect, Watch
from ifdefault.daemon.controller.paths import Paths
from ifdefault.daemon.controller.state import State
from ifdefault.model.config import FAMILIES
from ifdefault.model.kernel import TABLE_MAIN, Facts, Route
from ifdefault.model.many import Many
from ifdefault.plan import prefixes, tables
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
        read = tuple(sorted(tables_read(state.config, facts)))
        watch = Watch(interfaces, read, on_link=not_beyond(facts, interfaces), ended=ended)
        uses_mptcp = prepared.config.mptcp.used
        if not state.held:
            watch = Watch(
                interfaces,
                read,
                sysctls=prepared.desired.sysctls,
                udp_servers=facts.wildcard_udp if auto else None,
                groups=prepared.observation.groups,
                runs=tuple(prepared.observation.state.runs),
                mptcp=facts.mptcp.lasting if facts.mptcp and uses_mptcp else None,
                on_link=watch.on_link,
                ended=ended,
            )
        if watch != self._last:
            self._last = watch
            self._out.append(watch)


def not_beyond(facts: Facts, interfaces: tuple[str, ...]) -> tuple[str, ...]:
    """Prefixes on the host's own links, and those behind routers of its LANs; connections to them
    are no evidence for an uplink. (Of very many of the latter, some.)"""
    found = [_not_beyond(tables.of(facts, family, TABLE_MAIN), interfaces) for family in FAMILIES]
    routed = [prefix for _, of_family in found for prefix in of_family]
    return (*(prefix for on_link, _ in found for prefix in on_link), *routed[:_ROUTED_MAX])


@lru_cache(maxsize=2)
def _not_beyond(
    main: Many[Route], interfaces: tuple[str, ...]
) -> tuple[Sequence[str], Sequence[str]]:
    """The same of one family: on link, and behind routers."""
    on_link: list[str] = []
    routed: list[str] = []
    for hops, routes in tables.by_hops(main):
        if hops and not any(hop.gateway for hop in hops):
            on_link += [route.dst for route in routes if route.dst != "default"]
        elif hops and not any(hop.dev in interfaces for hop in hops):
            routed += [route.dst for route in routes if not _is_wide(route)]
    return on_link, routed


def _is_wide(route: Route) -> bool:
    return prefixes.network(route.dst)[1] <= SHORTEST_LOCAL[route.family]
