"""`python -m bench [NAME…]`: run benches, save their results, render the page.

Rules: BENCHES lists all. After a bench that fails the others still run, and the exit status is 1; a
missed target is no failure.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from bench import render, results
from bench.clock import log

BENCHES = {
    "connections": "10,000 connections over two uplinks",
    "reapply": "100 changed configs applied under load",
    "planner": "planning and applying, in process",
    "self_check": "asking the kernel whether packets go where they are meant to",
    "processes": "commands, as whole processes",
    "throughput": "connections per second and throughput, compared with a plain host",
    "forwarded": "10,000 connections to servers behind the host",
    "forward_speed": "forwarding by ifdefault, HAProxy and Shorewall",
    "full_line": "a full line beside an idle one: where new connections and visitors go",
    "metered": "20 deaths and returns of a free uplink beside a metered one",
    "balance": "outgoing connections balanced 3:1 while uplinks fail and return",
    "hook_cost": "the cost of the eBPF hook on connect()",
    "turn": "from the decision that an uplink is down to the rule in the kernel",
    "end_connections": "ending a dead uplink's connections",
    "rehome": "tunnels, a resolver and an NTP client follow the default",
    "mptcp": "connections that outlive their provider, and the cost of MPTCP",
    "failover": "an uplink dies and returns, compared with lsm, keepalived, gdnsd and PowerDNS",
    "dns_clients": "clients by name while a provider fails, compared with gdnsd and PowerDNS",
    "dns_failover": "from detection to the DNS: embedded, BIND, Knot",
    "dns_shared": "two hosts publish one name by RFC 2136, at BIND and Knot",
    "dns_burst": "800 new names a second through four resolvers, beyond the rate limit",
    "dns_restart": "DNS through restarts, crashes and upgrades, compared with gdnsd",
    "dns_speed": "answers per second, compared with BIND, Knot and gdnsd, and our probes meanwhile",
    "dns_fuzz": "the DNS server and a million mutated queries",
    "dns_conformance": "the DNS server's answers to dig and kdig",
    "package": "the package from apt install to apt purge, on Debian 12 and 13",
    "repair": "deletions by other programs, and other addresses",
    "chaos": "random faults on three uplinks and of the host",
    "foreign_routes": "a million routes, thousands of links, addresses and rules of others",
    "idle": "the cost of the daemon when nothing happens",
    "page": "what 1,000 open pages cost, and how soon they change",
    "browser": "how soon a fault shows on the page in Chromium",
    "reports": "what it costs the engine to be watched",
    "history": "a simulated year in the history: size, queries, writes a day",
    "judge": "false alarms and delay of the failure detector, simulated",
    "police": "lossy uplinks whose providers police pings, for ten minutes",
    "faults24": "days of faults on three uplinks, simulated",
    "simulate": "hours of the whole daemon with faults of every kind, simulated",
    "netlink": "our rtnetlink codec, compared with pyroute2",
}


def run(name: str, before: Path | None = None) -> bool:
    """Run one bench and save its results; return whether it succeeded."""
    log(f"{name}: {BENCHES[name]}")
    machine, start = results.read_machine(), time.monotonic()
    try:
        arguments = {"before": before} if name in ("turn", "processes") else {}
        report: results.Report = import_module(f"bench.{name}").run(**arguments)
    except Exception as error:  # noqa: BLE001  # the other benches go on
        log(f"{name}: failed: {type(error).__name__}: {error}")
        return False
    results.write(name, report, machine)
    log(f"{name}: done in {time.monotonic() - start:.0f} s")
    return True


def summary(names: list[str]) -> str:
    rows: list[tuple[str, ...]] = [("bench", "figure", "measured", "target", "")]
    for name in names:
        if result := results.read(name):
            rows += [(name, *render.figure_row(figure)) for figure in result[0].figures]
    return render.text_table([[cell.replace("*", "") for cell in row] for row in rows])


def _end(number: int, _: object) -> None:
    """SIGTERM ends a bench as Ctrl-C does: its worlds are removed."""
    sys.exit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, _end)
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument(
        "--render",
        action="store_true",
        help="only write docs/figures.md, its plots, and the tables in docs/peers.md",
    )
    help_ = "another checkout with a .venv, which `turn` and `processes` measure too"
    parser.add_argument("--before", metavar="DIR", type=Path, help=help_)
    options = parser.parse_args()
    names = options.names or list(BENCHES)
    if unknown := set(names) - set(BENCHES):
        parser.error(f"unknown bench {', '.join(sorted(unknown))}; use {', '.join(BENCHES)}")
    failed = [] if options.render else [name for name in names if not run(name, options.before)]
    render.write(list(BENCHES))
    if not options.render:
        print(summary([name for name in names if name not in failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
