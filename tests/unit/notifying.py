"""A monitor that does nothing but notify, to be killed: `python -m tests.unit.notifying DIRECTORY
URL`. It reads its events from events.jsonl in the directory, as if that were the engine."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from ifdefault.ipc import codec, tasks
from ifdefault.model.config import Config, NotifyConfig
from ifdefault.model.report import Event
from ifdefault.monitor.notify import schedule
from ifdefault.monitor.notify.notifiers import Notifiers

EVENTS = "events.jsonl"


async def notify(directory: Path, url: str) -> int:
    notifiers = Notifiers(directory, "web1", limit_s=0.5)
    notifiers.use_config(Config((), notify=(NotifyConfig("ops", webhook=url, group_s=0),)))
    while True:
        lines = (directory / EVENTS).read_bytes().splitlines()
        notifiers.receive([codec.from_json(Event, codec.read(x)) for x in lines], time.time())
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    schedule.SETTLE_S, schedule.RETRY_S = 0.01, 0.02
    sys.exit(tasks.run(notify(Path(sys.argv[1]), sys.argv[2])))
