"""`python -m tests.net.counted OUT CONFIG STATE_DIR RUN_DIR`: a daemon that notes what it does.

Rules: the daemon is the real one; each plan, and each effect that is performed, becomes a line of
OUT, `[monotonic seconds, name]`, before it is performed.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ifdefault.daemon import engine, perform
from ifdefault.daemon.controller import adopt, controller
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.plan.prepare import Prepared, prepare

PLAN = "plan"


@dataclass(frozen=True, slots=True)
class Deed:
    at_s: float
    what: str


def read(out: Path) -> list[Deed]:
    """What it did until now."""
    return [Deed(*json.loads(line)) for line in out.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    out, config, state_dir, run_dir = map(Path, sys.argv[1:])
    performed = perform.Performers.perform
    with out.open("w", encoding="utf-8", buffering=1) as lines:

        def note(what: str) -> None:
            print(json.dumps([time.monotonic(), what]), file=lines)

        def counted(self: perform.Performers, effect: f.Effect) -> e.Event | None:
            note(type(effect).__name__)
            return performed(self, effect)

        def planned(*given: object, **keys: object) -> Prepared:
            note(PLAN)
            return prepare(*given, **keys)  # type: ignore[arg-type]

        perform.Performers.perform = counted  # type: ignore[method-assign]
        for module in (adopt, controller):
            module.prepare = planned  # type: ignore[attr-defined]
        return engine.run(config, state_dir, run_dir)


if __name__ == "__main__":
    sys.exit(main())
