"""`python -m tests.simulation`: simulated hours of the daemon, until one goes wrong."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.simulation import live


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev simulate", description=__doc__)
    parser.add_argument("--hours", type=int, default=20, help="how many (20)")
    parser.add_argument("--seed", type=int, default=1, help="which world (1)")
    parser.add_argument("--first", type=int, default=0, help="the hour to begin with (0)")
    chosen = parser.parse_args()
    counts: Counter[str] = Counter()
    start_s = time.monotonic()
    for number in range(chosen.first, chosen.first + chosen.hours):
        hour = live(chosen.seed, number)
        counts += hour.counts
        if hour.violation:
            print(*hour.last, sep="\n")
            print(f"\nseed {hour.seed}, hour {hour.number}: {hour.violation}")
            print(f"again: ./dev simulate --seed {hour.seed} --first {hour.number} --hours 1")
            return 1
    took_s = time.monotonic() - start_s
    print(f"{chosen.hours} hours in {took_s:.0f} s, {chosen.hours / took_s * 60:.0f} a minute")
    for what, times in sorted(counts.items()):
        print(f"{times:8}  {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
