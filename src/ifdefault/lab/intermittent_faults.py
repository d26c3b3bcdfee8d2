"""A fault in spells, until ended: `python -m ifdefault.lab.intermittent_faults`.

Rules: it runs where the fault is. A spell begins and ends by shell scripts, which know its length
as $MS; none is broken off, and no spell outlasts this program.
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
class Spells:
    """At random both times are exponential, and these are their means."""

    begin: str
    end: str
    lasts_s: float
    rests_s: float
    at_random: bool

    def repeat(self) -> None:
        """Spell after spell, the first one now, until we are told to end."""
        over = False
        while not over:
            spell_s = self._draw(self.lasts_s)
            _act(self.begin, spell_s)
            over = _ended_within(spell_s)
            _act(self.end, spell_s)
            over = over or _ended_within(self._draw(self.rests_s))

    def _draw(self, mean_s: float) -> float:
        return random.expovariate(1 / mean_s) if self.at_random else mean_s


def _act(script: str, spell_s: float) -> None:
    env = {**os.environ, "MS": str(max(1, round(spell_s * 1000)))}
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
    chosen = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    print("ready", flush=True)
    times = (chosen.lasts, chosen.rests)
    Spells(chosen.begin, chosen.end, *times, at_random=chosen.at_random).repeat()


if __name__ == "__main__":
    main()
