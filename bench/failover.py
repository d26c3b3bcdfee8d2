"""`failover`: an uplink dies; how long until the host, or a name, has left it, and until it is back.

Rules: what counts is what can be seen from outside the system under measurement: where the kernel
would send a packet, or which addresses a DNS server names. A trial begins at a random place between
two probes. Slow systems run in worlds beside one another, and beside the quick ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from bench import daemon, peers_monitors
from bench.failover_trials import BLACKHOLE, CARRIER, Cut, Job, System, Trial, run as run_jobs
from bench.peers_monitors import DEVICE, FAR
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from ifdefault.lab import faults
from ifdefault.lab.world import World

_US = "ifdefault"
_WORLDS = 4  # at a time, beside the slow peers'
_PING = f"exec ping -q -n -c 1 -W 1 -I {DEVICE} {FAR[0]}\n"
_THREE_PINGS = f"""\
for far in 198.18.1.10 198.18.1.11 198.18.2.10; do
    ping -q -n -c 1 -W 0.3 -I {DEVICE} $far && exit
done
exit 1
"""
