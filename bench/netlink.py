"""`netlink`: our rtnetlink codec compared with pyroute2, on the same tables of the same host.

Rules: pyroute2 is no dependency; it is installed into a temporary directory for this bench. Each
side decodes links, addresses, routes and rules of both families into its own objects.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from bench import many_uplinks
from bench.clock import log, times_ms
from bench.results import Figure, Report
from bench.stats import median
from bench.subject import Subject
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

_IMPORTS = 9
_HOW = """\
*Dump* reads all links, addresses, routes and rules of a host with 31 uplinks and 16 addresses each,
after `apply`, IPv4 and IPv6, and decodes them into objects. *Import* is the time of a process that
imports the library and ends, minus that of an empty one."""

_OURS = """
from ifdefault.kernel import rtnetlink as r
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.uapi import rtnetlink as rt
def dump():
    with Netlink() as n:
        links = [r.decode_link(m) for m in n.dump(rt.RTM_GETLINK, r.link_query())]
        names = {link.index: link.name for link in links}
        objects = list(links)
        for f in (4, 6):
            messages = n.dump(rt.RTM_GETADDR, r.address_query(f))
            objects += [r.decode_address(m, names) for m in messages]
            objects += [r.decode_route(m, names) for m in n.dump(rt.RTM_GETROUTE, r.route_query(f))]
            objects += [r.decode_rule(m) for m in n.dump(rt.RTM_GETRULE, r.rule_query(f))]
        return len(objects)
"""
_PYROUTE2 = """
import socket
from pyroute2 import IPRoute
def dump():
    with IPRoute() as ip:
        objects = list(ip.get_links())
        for f in (socket.AF_INET, socket.AF_INET6):
            objects += ip.get_addr(family=f)
            objects += ip.get_routes(family=f)
            objects += ip.get_rules(family=f)
        return len(objects)
"""
_TIMED = """
import json, time
samples = []
for _ in range(9):
    start = time.perf_counter_ns()
    count = dump()
    samples.append((time.perf_counter_ns() - start) / 1e6)
print(json.dumps([count, samples[1:]]))
"""


def run() -> Report:
    sides = {"ours": (_OURS, "")}
    notes: tuple[str, ...] = ()
    topology = many_uplinks.topology(many_uplinks.PER_FAMILY)
    with tempfile.TemporaryDirectory() as directory, World.up(topology) as world:
        log("installing pyroute2 into a temporary directory")
        if version := _install(directory):
            sides["pyroute2"] = (_PYROUTE2, directory)
            notes = (f"pyroute2 {version}",)
        else:
            notes = ("pyroute2 couldn't be installed, so there is no comparison",)
        Subject(world).apply()
        samples: dict[str, list[float]] = {}
        figures = []
        bare_ms = median(times_ms(lambda: _python("pass"), _IMPORTS))
        for name, (text, path) in sides.items():
            log(f"import and dump: {name}")
            head = text.partition("def ")[0]
            imports = times_ms(lambda h=head, p=path: _python(h, p), _IMPORTS)  # type: ignore[misc]
            samples[f"{name}, import"] = [ms - bare_ms for ms in imports]
            script, extra = text + _TIMED, path
            output = world["host"].python(lambda s=script, e=extra: _python(s, e))  # type: ignore[misc]
            count, samples[f"{name}, dump"] = json.loads(output)
            figures += [
                Figure(f"{name}: import", median(samples[f"{name}, import"]), "ms"),
                Figure(f"{name}: dump", median(samples[f"{name}, dump"]), "ms"),
                Figure(f"{name}: objects", count),
            ]
    return Report("rtnetlink codec", _HOW, tuple(figures), (), samples, notes)


def _install(directory: str) -> str:
    """Install pyroute2; return its version, "" if that fails."""
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--target", directory, "pyroute2"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return ""
    return _python("import pyroute2; print(pyroute2.__version__)", directory).strip()


def _python(script: str, path: str = "") -> str:
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env
    )
    if done.returncode:
        raise HostError(f"a measured script failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
