"""`ifdefault report`: one archive for a bug report, without secrets."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from ifdefault.cli.duration import up_to
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo
from ifdefault.ipc.control.protocol import LONGEST_RECORD_S

_RECORD_S = 30
_GRACE_S = 30.0  # for an engine that is busy
_OWN: tuple[tuple[str, ...], ...] = (
    ("version",),
    ("status",),
    ("status", "--json"),
    ("uplink",),
    ("dns",),
    ("check",),
    ("plan",),
    ("doctor",),
    ("history",),
    ("events", "-n", "10000"),
)


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE",
    help="The archive to write, a new file; by default in the current directory.",
)
@click.option(
    "--recording",
    "record_s",
    callback=up_to(LONGEST_RECORD_S),
    metavar="TIME",
    help=f"Record the daemon's decisions for this time; by default {_RECORD_S} seconds.",
)
@click.option("--no-recording", is_flag=True, help="Record nothing.")
@click.option("--all-rules", is_flag=True, help="Add the packet filter rules of other programs.")
@click.option(
    "--anonymize", is_flag=True, help="Replace public addresses, MACs, host and domain names."
)
@click.pass_obj
def command(
    options: Options,
    output: Path | None,
    record_s: int | None,
    no_recording: bool,
    all_rules: bool,
    anonymize: bool,
) -> None:
    """Collect in one archive what a bug report needs: configuration, state, kernel, log, and a
    recording of the daemon. Secrets are replaced.

    Nothing is changed, and nothing is sent. Without root, what only root can read is left out.
    """
    from ifdefault.cli.main import SUBCOMMANDS
    from ifdefault.host.bug_report import archive
    from ifdefault.host.bug_report.collect import RECORD, collect
    from ifdefault.host.bug_report.parts import Where, parts

    if no_recording and record_s:
        raise click.UsageError("--recording and --no-recording contradict each other; use one")
    at = time.time()
    path = output or Path(
        f"ifdefault-report-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    )
    archive.require_new(path)
    left_out = {} if all_rules else {"packet filter rules of others": "not asked: --all-rules"}
    seconds = record_s or _RECORD_S
    where = Where(options.config.absolute(), options.state_dir, options.run_dir)
    own = tuple(arguments for arguments in _OWN if arguments[0] in SUBCOMMANDS)
    recording: _Recording | None = None
    if no_recording:
        left_out[RECORD] = "not wanted: --no-recording"
    else:
        echo(f"recording the daemon for {seconds} s", err=True)
        recording = _Recording(options, seconds)
    report = collect(
        parts(where, own, all_rules=all_rules),
        recording.result if recording else None,
        anonymize=anonymize,
        left_out=left_out,
        at=at,
    )
    size = archive.write(path, report.files, at)
    for name, text in report.files.items():
        note = f"  ({report.notes[name]})" if name in report.notes else ""
        echo(f"{len(text):>9}  {name}{note}")
    for name, why in report.left_out.items():
        echo(f"left out: {name}: {why}")
    echo(f"{path}: {size} bytes; read it before you send it", err=True)


class _Recording(threading.Thread):
    """What the daemon records while the rest is collected. Ctrl-C doesn't wait for it."""

    def __init__(self, options: Options, seconds: int) -> None:
        super().__init__(daemon=True)
        self._options, self._seconds = options, seconds
        self._text, self._problem = "", ""
        self.start()

    def run(self) -> None:
        from ifdefault.model.errors import HostError, reason

        try:
            self._text = _record(self._options, self._seconds)
        except HostError as error:
            self._problem = str(error)
        except OSError as error:
            self._problem = f"{error.filename}: {reason(error)}"

    def result(self) -> str:
        """It, or Missing, which says why there is nothing."""
        from ifdefault.host.bug_report.parts import Missing

        self.join()
        if self._problem:
            raise Missing(self._problem)
        return self._text


def _record(options: Options, seconds: int) -> str:
    from ifdefault.cli import daemon_client
    from ifdefault.ipc.control.protocol import Record

    path = Path(daemon_client.ask(options, Record(seconds), seconds + _GRACE_S).path)
    try:
        return path.read_text("utf-8", "backslashreplace")
    finally:
        path.unlink(missing_ok=True)
