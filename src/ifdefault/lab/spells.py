"""What comes and goes: `python -m ifdefault.lab.spells`, a fault in spells, until ended.

Rules: it runs where the fault is, and says nothing. A spell begins and ends by shell scripts,
which know its length as $MS. Whoever ends this program ends the spell as well: it can't.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import time


def repeat(begin: str, end: str, lasts_s: float, rests_s: float, *, at_random: bool) -> None:
    """Spell after spell; at random both times are exponential, and these are their means."""

    def draw(mean_s: float) -> float:
        return random.expovariate(1 / mean_s) if at_random else mean_s

    print("ready", flush=True)
    while True:
        spell_s = draw(lasts_s)
        _act(begin, spell_s)
        time.sleep(spell_s)
        _act(end, spell_s)
        time.sleep(draw(rests_s))


def _act(script: str, spell_s: float) -> None:
    env = {**os.environ, "MS": str(max(1, round(spell_s * 1000)))}
    if script:
        subprocess.run(["sh", "-e", "-c", script], check=True, env=env)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--begin", required=True, metavar="SCRIPT")
    parser.add_argument("--end", default="", metavar="SCRIPT")
    parser.add_argument("--lasts", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--rests", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--at-random", action="store_true")
    chosen = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        repeat(
            chosen.begin, chosen.end, chosen.lasts, chosen.rests, at_random=chosen.at_random
        )


if __name__ == "__main__":
    main()
