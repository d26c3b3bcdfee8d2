"""Read the host's current state into an Observation, the only input of planning.

Rules: nothing is changed, except that the kernel is asked to resolve routers' MAC addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ifdefault.host import routers
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.saved_state import DISCOVERED
from ifdefault.host.store import Store
from ifdefault.kernel import filters, foreign, nft, sockdiag, sysctl
from ifdefault.kernel.ebpf import attach, cgroups
from ifdefault.kernel.read import read_facts
from ifdefault.kernel.route_get import route_get_many
from ifdefault.model.address import is_public
from ifdefault.model.config import Config, Family
from ifdefault.model.dns import DISCOVER
from ifdefault.model.errors import HostError
from ifdefault.model.flow import Answers, Question
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Facts
from ifdefault.plan.conflicts_arp import arp_sysctls
from ifdefault.plan.recover import recover
from ifdefault.plan.scope import scope


def observe(
    config: Config,
    store: Store,
    *,
    thorough: bool = True,
    strays: bool = False,
    routers_seen: RoutersSeen | None = None,
    questions: tuple[Question, ...] = (),
    rights: bool = True,
) -> Observation:
    """What planning needs for a config. `thorough` also reads what is needed to find conflicts with
    other programs. `strays`: also look for routes of ours in all tables. With `routers_seen`,
    unresolved routers aren't waited for. `questions`: what the kernel is asked for the self-check.
    `rights`: as in `read_facts`."""
    saved = store.load()
    facts = read_facts(scope(config, saved, strays=strays), rights=rights)
    state = recover(saved, facts, config)
    if thorough:
        facts = _with_conflict_facts(config, facts)
    if routers_seen is None:
        facts = routers.with_known_routers(config, facts) if rights else facts
    else:
        facts = routers_seen.completed(config, facts)
    groups = group_ids(config, state)
    balances = bool(groups) or config.outgoing.mode == "balance"
    return Observation(
        facts,
        state,
        store.load_tables(),
        groups,
        no_balance=attach.unavailable() if balances else "",
        others=tuple(foreign.networkd_problems()) if thorough else (),
        answers=ask(questions, facts),
        public=_discovered(config, store),
    )


def _discovered(config: Config, store: Store) -> tuple[tuple[str, Family, str], ...]:
    """The public addresses that are announced, of uplinks whose config has none."""
    names = {uplink.name for uplink in config.uplinks if DISCOVER in uplink.public}
    rows = store.read(DISCOVERED) or () if config.mptcp.announce and names else ()
    return tuple(row for row in rows if row[0] in names and is_public(row[2], row[1]))


def ask(questions: Sequence[Question], facts: Facts) -> Answers:
    """Ask the kernel where the packets of the self-check go."""
    replies = route_get_many([question.flow for question in questions], facts.links)
    return tuple(zip(questions, replies, strict=True))


def _with_conflict_facts(config: Config, facts: Facts) -> Facts:
    """Add what is needed to find conflicts with other programs."""
    ruleset = nft.ruleset_json()
    saved = foreign.iptables_saved(ruleset)
    serves = bool(config.dns.server.zones)  # ports that their packet filters may close
    forwards = bool(config.forwards or config.outgoing.masquerade)
    devices = ("all", *sorted({uplink.interface for uplink in config.uplinks}))
    arp = ((name, sysctl.read(name)) for dev in devices for name in arp_sysctls(dev))
    return replace(
        facts,
        sysctls=(*facts.sysctls, *((name, value) for name, value in arp if value is not None)),
        foreign_marks=foreign.foreign_marks(ruleset, saved),
        listening=sockdiag.listening(),
        filters=filters.filter_chains(ruleset, saved) if serves else (),
        forward_filters=filters.filter_chains(ruleset, saved, "forward") if forwards else (),
        reverse_path_filters=foreign.reverse_path_filters(ruleset),
    )


def group_ids(config: Config, state: State) -> tuple[tuple[str, int], ...]:
    """The ids of the control groups that have rules, 0 for a group that doesn't exist."""
    configured = (path for rule in config.outgoing.rules for path in rule.cgroups)
    try:
        return tuple(
            (path, cgroups.number(path)) for path in dict.fromkeys((*state.runs, *configured))
        )
    except HostError:  # no cgroup v2, so no groups
        return ()
