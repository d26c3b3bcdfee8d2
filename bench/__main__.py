"""`python -m bench [NAME…]`: run benches, keep their results, render the page.

Rules: BENCHES is the table of all. A bench that fails stops nothing else, but the exit status
says so; a target that isn't met is a figure, not a failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from bench import render, results
from bench.clock import say

BENCHES = {
    "connections": "10,000 connections over two uplinks",
    "reapply": "100 re-applies under load",
    "planner": "planning and applying, in process",
    "processes": "whole processes",
    "throughput": "connections per second and throughput beside a plain host",
    "forwarded": "10,000 connections to what lies behind the host",
    "forward_speed": "forwarding by ifdefault, HAProxy and Shorewall",
    "balance": "outgoing connections shared 3:1 while members die and return",
    "hook_cost": "what the hook on connect() costs",
    "turn": "from the verdict that an uplink is down to the rule in the kernel",
    "free": "letting go of a dead uplink's connections",
    "failover": "an uplink dies and returns, beside lsm, keepalived, gdnsd and PowerDNS",
    "dns_clients": "visitors by name while a provider dies, beside gdnsd and PowerDNS",
    "dns_failover": "from a dead uplink to the DNS: embedded, BIND, Knot",
    "dns_shared": "two hosts share one name by RFC 2136, at BIND and Knot",
    "dns_speed": "answers per second beside BIND, Knot and gdnsd, and our probes meanwhile",
    "dns_fuzz": "the DNS server under a million mutated queries",
    "dns_conformance": "what dig and kdig get of the DNS server",
    "repair": "what others delete, and other addresses",
    "chaos": "random faults over three uplinks",
    "idle": "what the daemon costs when nothing happens",
    "judge": "false alarms and delay of the judge, simulated",
    "faults24": "days of faults on three uplinks, simulated",
    "simulate": "hours of the whole daemon with faults of every kind, simulated",
    "netlink": "our rtnetlink codec beside pyroute2",
}


def run(name: str, before: Path | None = None) -> bool:
    """Run one bench and keep what it found; return whether it came to an end."""
    say(f"{name}: {BENCHES[name]}")
    machine, start = results.read_machine(), time.monotonic()
    try:
        given = {"before": before} if name in ("turn", "processes") else {}
        report: results.Report = import_module(f"bench.{name}").run(**given)
    except Exception as error:  # noqa: BLE001  # the other benches go on
        say(f"{name}: failed: {type(error).__name__}: {error}")
        return False
    results.write(name, report, machine)
    say(f"{name}: done in {time.monotonic() - start:.0f} s")
    return True


def summary(names: list[str]) -> str:
    rows: list[tuple[str, ...]] = [("bench", "figure", "measured", "target", "")]
    for name in names:
        if found := results.read(name):
            rows += [(name, *render.figure_row(figure)) for figure in found[0].figures]
    return render.text_table([[cell.replace("*", "") for cell in row] for row in rows])


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--render", action="store_true", help="only write docs/figures.md anew")
    help_ = "a checkout with a .venv, which `turn` and `processes` measure as well"
    parser.add_argument("--before", metavar="DIR", type=Path, help=help_)
    chosen = parser.parse_args()
    names = chosen.names or list(BENCHES)
    if unknown := set(names) - set(BENCHES):
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    failed = [] if chosen.render else [name for name in names if not run(name, chosen.before)]
    render.PAGE.write_text(render.render(list(BENCHES)), encoding="utf-8")
    if not chosen.render:
        print(summary([name for name in names if name not in failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
