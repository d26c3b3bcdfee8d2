"""Changes that `apply --confirm` made, as long as they wait for confirmation.

Rules: while the daemon runs it keeps the timer, and is asked; otherwise the rollback timer is a
process of its own. Neither depends on the command that is waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifdefault.cli import daemon_client
from ifdefault.cli.options import Options
from ifdefault.model.errors import HostError, Problem

if TYPE_CHECKING:
    from ifdefault.host.store import Store


def confirm(options: Options) -> None:
    """Keep them; HostError if nothing waits."""
    if daemon_client.runs(options):
        from ifdefault.ipc.control.protocol import Confirm

        daemon_client.ask(options, Confirm(), daemon_client.CHANGE_S)
    else:
        from ifdefault.host import rollback_timer

        rollback_timer.confirm(_store(options), options.config)


def undo(options: Options) -> None:
    """Undo them now; HostError if nothing waits."""
    if daemon_client.runs(options):
        from ifdefault.ipc.control.protocol import Undo

        daemon_client.ask(options, Undo(), daemon_client.CHANGE_S)
    else:
        from ifdefault.host import rollback_timer

        rollback_timer.undo(_store(options))


def left_s(options: Options) -> float | None:
    """How long they wait; None if they don't, any more. HostError if they do, and nothing will undo
    them."""
    try:
        if (status := daemon_client.status(options)) is not None:
            return status.undone_in_s
    except HostError:
        if daemon_client.runs(options):  # otherwise it has just ended
            raise
    from ifdefault.host import rollback_timer

    store = _store(options)
    if (left := rollback_timer.left_s(store)) is not None:
        return left
    if (store.directory / rollback_timer.PENDING.name).exists():
        what = "the rollback timer ended without undoing the changes"
        raise HostError(Problem("apply --confirm", what, "run ifdefault down to remove them"))
    return None


def is_confirmed(options: Options) -> bool:
    """Whether nothing that `apply --confirm` tried is unconfirmed."""
    from ifdefault.host.last_config import UNCONFIRMED

    return _store(options).read(UNCONFIRMED) is None


def _store(options: Options) -> Store:
    from ifdefault.host.store import Store

    return Store(options.state_dir)
