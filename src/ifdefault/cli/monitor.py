"""`ifdefault monitor`: keeps the history and notifies, in the foreground."""

from __future__ import annotations

from contextlib import suppress

import click

from ifdefault.cli.options import Options


@click.command()
@click.pass_obj
def command(options: Options) -> int:
    """Follow the daemon in the foreground: keep the history of the uplinks, and notify.

    It needs no privileges: started as root, it continues as the user in [daemon] user. It waits for
    a daemon that doesn't run, and outlives its restarts. SIGTERM ends it; SIGHUP reads the
    configuration again, as a reload of the daemon does.
    """
    from ifdefault.ipc import log, privileges, tasks
    from ifdefault.model.errors import IfdefaultError
    from ifdefault.monitor.config import MonitorConfig, read_apart
    from ifdefault.monitor.monitor import Monitor
    from ifdefault.monitor.notify.deliver import Deliverer
    from ifdefault.monitor.start import prepare

    log.set_up()
    config: MonitorConfig | None = None
    with suppress(IfdefaultError):  # reported when it is read again, by the monitor
        config = read_apart(options.config)
    user = (config or MonitorConfig()).user
    deliverer = Deliverer(privileges.possible(*privileges.choose_user(user)[:2]))
    prepare(user, options.state_dir, options.run_dir)

    async def run() -> int:
        directories = (options.state_dir, options.run_dir)
        return await Monitor(options.config, *directories, deliverer).run(config)

    return tasks.run(run())
