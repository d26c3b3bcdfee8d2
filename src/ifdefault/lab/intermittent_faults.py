"""An intermittent fault, until ended: `python -m ifdefault.lab.intermittent_faults`.

Rules: it runs on the node that has the fault. Shell scripts begin and end each period, whose length
is in $MS. Every period that begins is ended, also when this program ends.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
from dataclasses import dataclass

_ENDING = {signal.SIGTERM, signal.SIGINT}


@dataclass(frozen=True, slots=True)
class Periods:
    """Periods of a fault. With `at_random` the times are means of exponential distributions."""

    begin: str
    end: str
    lasts_s: float
    rests_s: float
    at_random: bool

    def repeat(self) -> None:
        """Run period after period, the first one at once, until a signal."""
        over = False
        while not over:
            period_s = self._duration(self.lasts_s)
            _run(self.begin, period_s)
            over = _ended_within(period_s)
            _run(self.end, period_s)
            over = over or _ended_within(self._duration(self.rests_s))

    def _duration(self, mean_s: float) -> float:
        return random.expovariate(1 / mean_s) if self.at_random else mean_s


def _run(script: str, period_s: float) -> None:
    env = {**os.environ, "MS": str(max(1, round(period_s * 1000)))}
    if script:
        subprocess.run(["sh", "-e", "-c", script], check=True, env=env)


def _ended_within(time_s: float) -> bool:
    return signal.sigtimedwait(_ENDING, time_s) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--begin", required=True, metavar="SCRIPT")
    parser.add_argument("--end", default="", metavar="SCRIPT")
    parser.add_argument("--lasts", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--rests", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--at-random", action="store_true")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    print("ready", flush=True)
    times = (options.lasts, options.rests)
    Periods(options.begin, options.end, *times, at_random=options.at_random).repeat()


if __name__ == "__main__":
    main()
