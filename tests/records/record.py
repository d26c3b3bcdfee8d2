"""Makes the records of this folder anew, in the lab: `python -m tests.records.record [NAME…]`.

Rules: a record is a run of the daemon on a lab's host, from its start until it was stopped. What
the program makes of it is in the text of the same name, which `./dev golden-update` writes anew.
Records must be made anew only where events have changed so that the old can't be read any more.
Needs root.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ifdefault.lab import faults
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.watched import await_default, await_states

HERE = Path(__file__).parent


def blackhole(world: World, file: Path, done: Callable[[], object] = lambda: None) -> None:
    """isp-a dies silently, and the default moves; `done` is called before the daemon is stopped."""
    answers.configure(world, "[health]\nrecover_s = 0.3\n")
    daemon = world.daemon("--record", str(file))
    await_states(world, ["up"])
    with faults.injected(world, "blackhole", "isp-a"):
        await_default(world, "wan1")
        await_states(world, ["down"], "isp-a")
        done()
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(PATIENCE_S)


RECORDS: dict[str, tuple[str, Callable[[World, Path], None]]] = {
    "two-blackhole": ("two", blackhole),
}


if __name__ == "__main__":
    for name in sys.argv[1:] or RECORDS:
        topology, run = RECORDS[name]
        file = HERE / f"{name}.jsonl"
        file.unlink(missing_ok=True)
        with World.up(load(topology)) as world:
            run(world, file)
        file.chmod(0o644)
