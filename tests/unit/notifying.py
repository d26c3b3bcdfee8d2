"""A monitor that does nothing but notify, to be killed: `python -m tests.unit.notifying DIRECTORY
URL`. It reads its events from events.jsonl in the directory, as if that were the engine."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ifdefault.ipc import codec, tasks
from ifdefault.model.config import NotifyConfig
from ifdefault.model.report import Event
from ifdefault.monitor.config import MonitorConfig
from ifdefault.monitor.feed import NewEvents
from ifdefault.monitor.notify import schedule
from ifdefault.monitor.notify.deliver import Deliverer
from ifdefault.monitor.notify.notifiers import Notifiers
from ifdefault.monitor.status_file import StatusFile, status_dir

EVENTS = "events.jsonl"


@contextmanager
def deliverer() -> Iterator[Deliverer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a test's process has threads
        made = Deliverer()
    try:
        yield made
    finally:
        made.close()


def start(directory: Path, delivers: Deliverer, limit_s: float) -> Notifiers:
    """Notifiers whose files are all below a directory."""
    status_dir(directory).mkdir(exist_ok=True)
    return Notifiers(directory, "web1.example.net", StatusFile(directory), delivers, limit_s)


async def notify(directory: Path, url: str, delivers: Deliverer) -> int:
    notifiers = start(directory, delivers, limit_s=0.5)
    config = NotifyConfig("ops", webhook=url, group_s=0)
    await notifiers.configure(MonitorConfig(notify=(config,)))
    while True:
        lines = (directory / EVENTS).read_bytes().splitlines()
        events = (codec.from_json(Event, codec.read(line)) for line in lines)
        await notifiers.receive(NewEvents(tuple(events)))
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    schedule.SETTLE_S, schedule.RETRY_S = 0.01, 0.02
    sys.exit(tasks.run(notify(Path(sys.argv[1]), sys.argv[2], Deliverer())))
