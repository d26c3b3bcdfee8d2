"""`package`: the package from `apt install` to `apt purge`, on Debian 12 and 13.

Rules: it is `tests/systemd/test_package.py` that measures; one release after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.clock import log
from bench.results import Figure, Report, Table
from tests import systemd
from tests.system.__main__ import CACHE
from tests.systemd import figures, folder, package

_NAMES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
_TEST = "tests/systemd/test_package.py::test_its_life"
_HOW = """\
A host with two uplinks in the lab's world `two`, booted by systemd-nspawn, with nginx. The package
is installed with `apt install ./ifdefault.deb`; then four commands: `ifdefault init --zone`,
`ifdefault apply --confirm 60`, `ifdefault confirm`, `systemctl enable --now ifdefault`, until page
and zone are answered on all four addresses of both uplinks. The upgrade is by `apt install` while a
client holds 100 TCP connections and checks every byte that comes back on them, opens 100 more a
second to nginx, and asks 100 DNS queries a second. Then a downgrade, a reboot, `apt remove`, an
install again, and `apt purge`, after which rules, routes, nftables, sysctls, links, users and files
are compared with those before."""


def run() -> Report:
    cache = CACHE.resolve()
    cache.mkdir(exist_ok=True)
    package.make(cache)
    rows: list[dict[str, Any]] = []
    for release in folder.RELEASES:
        with tempfile.NamedTemporaryFile() as file:
            environment = {systemd.CACHE: str(cache), figures.FILE: file.name}
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            subprocess.run(
                [*command, f"{_TEST}[{release}]"], env=os.environ | environment, check=True
            )
            rows += [json.loads(line) for line in Path(file.name).read_text().splitlines()]
    for row in rows:
        log(f"{row['release']}: {row['what']}: {row['value']:g} {row['unit']}")
    measured = tuple(
        Figure(f"{_NAMES[r['release']]}: {r['what']}", r["value"], r["unit"], r["target"])
        for r in rows
        if r["target"] is not None
    )
    whats = list(dict.fromkeys(row["what"] for row in rows))
    table = Table(
        "All that was counted", ("", *_NAMES.values()), tuple(_row(w, rows) for w in whats)
    )
    return Report("The package", _HOW, measured, (table,), {"figures": rows})


def _row(what: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    of = {row["release"]: row for row in rows if row["what"] == what}
    values = ((of[release]["value"], of[release]["unit"]) for release in _NAMES)
    return (what, *(f"{value:.4g} {unit}".strip() for value, unit in values))
