"""The state of this host that breaks traffic by itself: the connection table, and the clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ifdefault.kernel.clock import read_clock
from ifdefault.model.findings import Finding, Level

_CONNTRACK = Path("/proc/sys/net/netfilter")
_NEARLY_FULL = 0.9
TSIG_FUDGE_S = 300  # RFC 8945, 10


def connections(directory: Path = _CONNTRACK) -> Iterator[Finding]:
    """How full the connection table is, if there is one."""
    try:
        count, most = (
            int((directory / f"nf_conntrack_{name}").read_text("ascii", "replace"))
            for name in ("count", "max")
        )
    except (OSError, ValueError):
        return
    what = f"{count} of {most} connections are tracked"
    if not most or count < _NEARLY_FULL * most:
        yield Finding("fact", "conntrack", what)
        return
    level: Level = "error" if count >= most else "warning"
    setting = "net.netfilter.nf_conntrack_max"
    yield Finding(
        level,
        "conntrack",
        what,
        f"run `sysctl -w {setting}={2 * most}`, and set it in /etc/sysctl.d",
        "When the table is full, packets of new connections are dropped.",
    )


def clock(*, signs: bool) -> Iterator[Finding]:
    """`signs`: whether DNS messages are signed, which a wrong clock makes invalid."""
    try:
        found = read_clock()
    except OSError:  # not permitted by a container's seccomp filter
        return
    if found.synchronised:
        what = f"synchronised, wrong by {found.error_s:.3f} s at most"
        yield Finding("fact", "clock", what)
        return
    remedy = "run `timedatectl set-ntp true`, or install chrony"
    means = f"Servers refuse signed messages that are more than {TSIG_FUDGE_S} s off (TSIG)."
    level: Level = "warning" if signs else "note"
    yield Finding(level, "clock", "not synchronised", remedy, means if signs else "")
