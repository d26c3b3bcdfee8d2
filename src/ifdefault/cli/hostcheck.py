"""The problems of the host, for `check` and `doctor`.

Rules: nothing is changed. Without root's rights, what only root can read is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ifdefault import config as config_file
from ifdefault.cli.options import Options
from ifdefault.model.changes import undone_in
from ifdefault.model.config import Config
from ifdefault.model.errors import IfdefaultError, Problem
from ifdefault.model.kernel import NFT_TABLE, OWN_TABLES, Uplink

if TYPE_CHECKING:
    from ifdefault.host.store import Store
    from ifdefault.model.report import DaemonStatus
    from ifdefault.plan.prepare import Prepared


@dataclass(slots=True)
class HostCheck:
    """`prepared`: the plan, None if there is none; `daemon`: its status, None if none runs, or it
    didn't answer (`is_silent`)."""

    problems: list[Problem] = field(default_factory=list)
    uplinks: tuple[Uplink, ...] = ()
    prepared: Prepared | None = None
    daemon: DaemonStatus | None = None
    is_silent: bool = False


def check_host(options: Options, config: Config | None, command: str) -> HostCheck:
    """The host's problems and the resolved uplinks; without a config, only what needs none.
    `command`: the subcommand, for whoever should run it as root."""
    from ifdefault.cli import daemon_client
    from ifdefault.host.check_daemon import find_problems
    from ifdefault.host.store import Store

    store = Store(options.state_dir)
    found = HostCheck([*_missing_privileges(command), *store.examine()])
    try:
        found.daemon = daemon_client.status(options)
    except IfdefaultError as error:
        found.problems += error.problems
        found.is_silent = True
    try:
        _examine(options, config, store, found)
    except IfdefaultError as error:
        found.problems += error.problems
    if config is not None:
        lines = config_file.with_lines(options.config, find_problems(config, found.uplinks))
        found.problems += lines
    found.problems.sort(key=lambda problem: (problem.warning, problem.hint))
    return found


def _examine(options: Options, config: Config | None, store: Store, found: HostCheck) -> None:
    from ifdefault.host import check_mptcp
    from ifdefault.host.check_installation import find_missing, find_others
    from ifdefault.host.left_dns_server import LEFT_REMEDY, left_dns_server
    from ifdefault.host.status import find_astray, find_differences
    from ifdefault.host.transaction import prepare_config
    from ifdefault.kernel import foreign, nft

    daemon = found.daemon
    found.problems += [*_state_problems(daemon), *find_others(daemon)]
    is_absent = daemon is None and not found.is_silent
    if is_absent and (left := left_dns_server(options.run_dir)):
        found.problems.append(Problem("daemon", f"doesn't run, but {left}", LEFT_REMEDY, True))
    rights = nft.has_rights()
    if config is None:
        nft.check(NFT_TABLE, "")
        found.problems += foreign.networkd_problems()
        return
    found.problems += unconfirmed(store, daemon)
    decision = daemon.decision if daemon else None
    prepared = found.prepared = prepare_config(
        config, store, decision=decision, thorough=rights, rights=rights
    )
    found.uplinks, known = prepared.uplinks, prepared.problems
    if not prepared.operations:  # otherwise they have only what is to be expected
        known += tuple(p for p in find_astray(prepared) if p not in known)
    known += tuple(find_missing(prepared.observation.facts.links))
    if is_absent:  # it repairs
        known += tuple(find_differences(prepared, rights=rights))
    known += tuple(check_mptcp.find_problems(prepared))
    found.problems += config_file.with_lines(options.config, known)
    tables = dict(prepared.desired.tables)
    for name in OWN_TABLES:
        nft.check(name, tables.get(name, ""))


def _state_problems(daemon: DaemonStatus | None) -> Iterator[Problem]:
    """What the daemon couldn't read or save."""
    if daemon and daemon.config_errors:
        what = "the daemon uses the last config that worked"
        yield Problem(daemon.config, what, "once this one has no errors, run ifdefault reload")
    for text in daemon.unsaved if daemon else ():
        yield Problem("", text, "free space there, or make it writable")


def unconfirmed(store: Store, daemon: DaemonStatus | None) -> Iterator[Problem]:
    """An apply that waits for confirmation, and a daemon that changes nothing for now."""
    from ifdefault.host import rollback_timer

    if daemon and daemon.held:
        yield Problem("daemon", daemon.held, warning=True)
    elif (left_s := rollback_timer.left_s(store)) is not None:
        yield Problem("apply --confirm", undone_in(left_s), warning=True)


def _missing_privileges(command: str) -> Iterator[Problem]:
    if os.geteuid():
        what = "without root, not everything can be checked"
        yield Problem(command, what, f"run sudo ifdefault {command}", warning=True)
